"""The LoRA adapter: its configuration from the recipe, the layers it goes to, and the number type of its weights."""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant

_ADAPTABLE = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
"""Kinds of layers that PEFT puts LoRA on and language models have; bitsandbytes' are subclasses of Linear."""
_START = "spec.lora.initialAdapterUri"


def lora_config(spec: LoraSpec, model: Any) -> LoraConfig:
    """PEFT's configuration of an adapter for `model`.

    PEFT's own default touches only q_proj and v_proj of a Llama; `all-linear` is every linear layer but the head.
    """
    saved = list(spec.modules_to_save) if spec.modules_to_save else None
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
        modules_to_save=saved,
        # Head and embeddings of most small models are one weight, and a copy of one half would leave the other behind
        # (peft#2777). PEFT warns when it is asked to without a reason.
        ensure_weight_tying=bool(saved) and bool(_ties(model) & {_last(name) for name in saved or ()}),
    )


def _ties(model: Any) -> set[str]:
    """Last names of the modules that share one weight as embeddings and head; empty when they have one each."""
    if not model.config.get_text_config().tie_word_embeddings:
        return set()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {_last(name) for name, part in model.named_modules() if any(part is end for end in ends)}


def require_targets(model: Any, spec: LoraSpec) -> None:
    """Checks that every name in lora.targetModules is one of a layer that can carry an adapter.

    PEFT passes over a name that matches nothing as long as another one matches, and trains less than was asked for. The
    output head is refused: what it is tied to (the embeddings of most small models) would not follow.

    Args:
        model: the base model, before PEFT has changed it.
        spec: the adapter.

    Raises:
        TrainerError: INVALID_RECIPE; the message lists every wrong name and the names that there are.
    """
    head = model.get_output_embeddings()
    layers = {name: part for name, part in model.named_modules() if isinstance(part, _ADAPTABLE) and part is not head}
    modules = dict(model.named_modules())
    wrong = []
    for asked in spec.target_modules:
        # PEFT's rule (peft:tuners/tuners_utils.py, check_target_module_exists): the whole name or its end.
        matching = [name for name in modules if name == asked or name.endswith(f".{asked}")]
        if asked != ALL_LINEAR and not (matching and layers.keys() >= set(matching)):
            wrong.append(asked)
    if wrong or not layers:
        asked_for = ", ".join(wrong or spec.target_modules)
        known = sorted({_last(name) for name, part in layers.items() if not isinstance(part, torch.nn.Embedding)})
        raise TrainerError(
            FailureReason.INVALID_RECIPE,
            f"spec.lora.targetModules: {asked_for}: no such linear layer in this model, or its output head; it has "
            f"{', '.join(known)}",
        )


def require_saveable(model: Any, spec: LoraSpec) -> None:
    """Checks that every name in lora.modulesToSave is one of a module that can be trained whole.

    PEFT passes over a name that matches nothing, and quantised weights have no gradient.

    Args:
        model: the base model, before PEFT has changed it.
        spec: the adapter.

    Raises:
        TrainerError: INVALID_RECIPE; the message lists every wrong name with its remedy.
    """
    wrong = []
    for asked in spec.modules_to_save or ():
        # PEFT's rule (peft:utils/other.py, _set_trainable): the name's end.
        matching = [part for name, part in model.named_modules() if name == asked or name.endswith(f".{asked}")]
        if not matching or not any(True for part in matching for _ in part.parameters()):
            wrong.append(f"{asked}: no such module with weights in this model")
        elif any(isinstance(weights, Params4bit | Int8Params) for part in matching for weights in part.parameters()):
            wrong.append(
                f"{asked}: its weights are quantised, and only plain ones can be trained whole; put it into "
                "lora.targetModules, or use none in model.quantization.type"
            )
    if wrong:
        raise TrainerError(FailureReason.INVALID_RECIPE, f"spec.lora.modulesToSave: {'; '.join(wrong)}")


def adapted_modules(model: Any) -> list[str]:
    """Names of the layers of a PEFT model that carry an adapter: the last part of each, without repetition, sorted."""
    return sorted({_last(name) for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)})


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def keep_in_float32(model: torch.nn.Module) -> None:
    """Casts every trained parameter to float32; call it once the trainer is made.

    SFTTrainer casts the adapter of a quantised model to bfloat16, and a resumed run gets it back as float32
    (peft#2421): the two then train in different numbers. bfloat16 also loses small updates: with a learning rate of
    2e-5 a quarter of what the loss should fall. DoRA's magnitude is exempt upstream for that reason (trl#7268).
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def take_weights(model: Any, file: Path) -> None:
    """Gives the adapter of a PEFT model the weights of another one, which must have the same layers and shapes.

    Args:
        model: the PEFT model with its new adapter in float32.
        file: the other adapter's safetensors file.

    Raises:
        TrainerError: MODEL_INVALID, the file is damaged, or made for another base model; INVALID_RECIPE, it is for
            other layers than the recipe asks for.
    """
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{_START}: its weights cannot be read: {error}") from error
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if different := sorted(own.keys() ^ weights.keys()):
        side = "the adapter has none" if different[0] in own else "the recipe asks for none"
        raise TrainerError(
            FailureReason.INVALID_RECIPE,
            f"{_START}: its layers are not those of spec.lora.targetModules and modulesToSave: {len(different)} weights"
            f" differ, for {different[0]} {side}; write the adapter's",
        )
    if different := [name for name, weight in own.items() if weight.shape != weights[name].shape]:
        name = different[0]
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"{_START}: it was made for another base model: {name} has the shape {tuple(weights[name].shape)}, here it "
            f"is {tuple(own[name].shape)}",
        )
    set_peft_model_state_dict(model, weights)
