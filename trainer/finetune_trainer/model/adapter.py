"""The LoRA adapter: its configuration from the recipe, its target layers, and the number type of its weights."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Params4bit
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant
from finetune_trainer.model.lora_targets import (
    LINEAR,
    adaptable_layers,
    expert_parameters,
    expert_weights,
    lora_targets,
    shortest_names,
    shortest_parameter_names,
)

_NUMBER = re.compile(r"\.\d+\.")
_START = "spec.lora.initialAdapterUri"


def lora_config(spec: LoraSpec, model: Any) -> LoraConfig:
    """PEFT's configuration of the adapter.

    The layers are those of `lora_targets`, by their names: PEFT's own `all-linear` would also adapt routers and vision
    towers.

    Args:
        spec: the adapter.
        model: the base model, before PEFT has changed it.
    """
    saved = list(spec.modules_to_save) if spec.modules_to_save else None
    targets = lora_targets(model, spec)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=float(spec.dropout),
        target_modules=shortest_names(model, targets.modules),
        target_parameters=shortest_parameter_names(model, targets.parameters) or None,
        bias=str(spec.bias),
        use_rslora=spec.variant is LoraVariant.RSLORA,
        use_dora=spec.variant is LoraVariant.DORA,
        modules_to_save=saved,
        # In most small models head and embeddings are one tied weight. Without this option PEFT trains a copy for one
        # of them, and the other keeps the old weight (peft#2777). PEFT warns if the option is set without tied weights.
        ensure_weight_tying=bool(saved) and bool(_ties(model) & {_last(name) for name in saved or ()}),
    )


def _ties(model: Any) -> set[str]:
    """Last name parts of embeddings and head if the model ties them to one weight; else empty."""
    if not model.config.get_text_config().tie_word_embeddings:
        return set()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {_last(name) for name, part in model.named_modules() if any(part is end for end in ends)}


def require_targets(model: Any, spec: LoraSpec) -> None:
    """Requires that every name in lora.targetModules matches layers that can have an adapter.

    PEFT ignores a name that matches nothing if another name matches, and then trains fewer layers than requested. The
    output head is refused. In most small models it is tied to the embeddings, which would not get the adapter.

    Args:
        model: the base model, before PEFT has changed it.
        spec: the adapter.

    Raises:
        TrainerError: INVALID_SPEC; the message lists every wrong name, and the names of the model's linear layers.
    """
    targets = lora_targets(model, spec)
    chosen = {*targets.modules, *(name.removesuffix(".weight") for name in targets.parameters)}
    every = [*dict(model.named_modules()), *expert_parameters(model)]
    wrong = []
    for asked in spec.target_modules:
        # By PEFT's rule a name matches a module's name or its end (peft:tuners/tuners_utils.py,
        # check_target_module_exists).
        matching = {name for name in every if name == asked or name.endswith(f".{asked}")}
        if asked != ALL_LINEAR and not (matching and chosen >= matching):
            wrong.append(asked)
    if wrong or not chosen:
        asked_for = ", ".join(wrong or spec.target_modules)
        known = sorted({_last(name) for name in adaptable_layers(model)})
        raise TrainerError(
            FailureReason.INVALID_SPEC,
            f"spec.lora.targetModules: {asked_for}: no such linear layer in this model, its output head, or a layer "
            f"that cannot have an adapter; it has {', '.join(known)}",
        )


def require_saveable(model: Any, spec: LoraSpec) -> None:
    """Requires that every name in lora.modulesToSave matches a module that can be trained whole.

    PEFT ignores a name that matches nothing, and quantised weights have no gradient.

    Args:
        model: the base model, before PEFT has changed it.
        spec: the adapter.

    Raises:
        TrainerError: INVALID_SPEC; the message lists every wrong name with its remedy.
    """
    wrong = []
    for asked in spec.modules_to_save or ():
        # By PEFT's rule a name matches the end of a module's name (peft:utils/other.py, _set_trainable).
        matching = [part for name, part in model.named_modules() if name == asked or name.endswith(f".{asked}")]
        if not matching or not any(True for part in matching for _ in part.parameters()):
            wrong.append(f"{asked}: no such module with weights in this model")
        elif any(isinstance(weights, Params4bit | Int8Params) for part in matching for weights in part.parameters()):
            wrong.append(
                f"{asked}: its weights are quantised, and only plain ones can be trained whole; put it into "
                "lora.targetModules, or use none in model.quantization.type"
            )
    if wrong:
        raise TrainerError(FailureReason.INVALID_SPEC, f"spec.lora.modulesToSave: {'; '.join(wrong)}")


def adapted_modules(model: Any) -> list[str]:
    """Names of a PEFT model's layers and expert parameters with an adapter, unique and sorted.

    A name is the last part of the full name that is no number.
    """
    return sorted({_last(re.sub(r"(\.\d+)+$", "", name)) for name in _adapted(model)})


def modules_without_adapter(model: Any) -> list[str]:
    """Names of a PEFT model's linear layers and experts that have no adapter, sorted, with `*` for a layer's number.

    The output head is not among them: it never has one.
    """
    base = model.get_base_model()
    head, adapted = base.get_output_embeddings(), set(_adapted(model))
    plain = [
        name.replace(".base_layer", "")
        for name, part in base.named_modules()
        if isinstance(part, LINEAR) and part is not head and ".lora_" not in name
    ]
    experts = [
        name.replace(".base_layer", "").removesuffix(".weight") for name in expert_weights(base) if ".lora_" not in name
    ]
    return sorted({_NUMBER.sub(".*.", name) for name in (*plain, *experts) if name not in adapted})


def _adapted(model: Any) -> Iterator[str]:
    """Full names of the base model's layers and parameters with an adapter."""
    for name, part in model.get_base_model().named_modules():
        if isinstance(part, ParamWrapper):
            layer = name.replace(".base_layer", "")
            yield layer if part.parameter_name == "weight" else f"{layer}.{part.parameter_name}"
        elif isinstance(part, BaseTunerLayer):
            yield name


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def keep_in_float32(model: torch.nn.Module) -> None:
    """Casts every trained parameter to float32. Call it after the trainer is constructed.

    SFTTrainer's constructor casts the adapter of a quantised model to bfloat16. A resumed run loads the adapter as
    float32 (peft#2421), so the two would train in different number types. bfloat16 also loses small updates: with a
    learning rate of 2e-5 the loss falls a quarter less. DoRA's magnitude is exempt upstream for that reason (trl#7268).
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def load_adapter_weights(model: Any, file: Path) -> None:
    """Loads the weights of an initial adapter into the new adapter of a PEFT model.

    Args:
        model: the PEFT model with its new adapter in float32.
        file: the initial adapter's safetensors file. It must have the same layers and shapes as the new adapter.

    Raises:
        TrainerError: MODEL_INVALID, the file is damaged or made for another base model; INVALID_SPEC, the file has
            other layers than the recipe.
    """
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{_START}: its weights cannot be read: {error}") from error
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    if different := sorted(own.keys() ^ weights.keys()):
        side = "the adapter has none" if different[0] in own else "the recipe asks for none"
        raise TrainerError(
            FailureReason.INVALID_SPEC,
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
