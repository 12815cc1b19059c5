"""The LoRA adapter: its configuration from the recipe, and the number type of its weights."""

from typing import Any

import torch
from peft import LoraConfig

from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant


def lora_config(spec: LoraSpec) -> LoraConfig:
    """PEFT's configuration.

    PEFT's own default touches only q_proj and v_proj of a Llama; `all-linear` is every linear layer but the head.
    """
    modules: Any = ALL_LINEAR if spec.target_modules == [ALL_LINEAR] else list(spec.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=float(spec.dropout),
        target_modules=modules,
        bias=str(spec.bias),
        use_rslora=spec.variant is LoraVariant.RSLORA,
        use_dora=spec.variant is LoraVariant.DORA,
    )


def keep_in_float32(model: torch.nn.Module) -> None:
    """Casts every trained parameter to float32; call it once the trainer is made.

    SFTTrainer casts the adapter of a quantised model to bfloat16, and a resumed run gets it back as float32
    (peft#2421): the two then train in different numbers. bfloat16 also loses small updates: with a learning rate of
    2e-5 a quarter of what the loss should fall. DoRA's magnitude is exempt upstream for that reason (trl#7268).
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
