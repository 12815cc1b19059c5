"""Decides which layers of a loaded base model get an adapter.

`all-linear` means the linear layers of the language model, and the experts of a mixture. It never means:

- the output head, and routers and gates of a mixture;
- a vision or audio tower, and the projector between it and the language model;
- low-rank adapters that the base model has of its own (Zamba 2);
- modules that choose: the tokens that attention looks at (DeepSeek V3.2), or where a patch of bytes ends (BLT). A
  choice has no gradient;
- layers whose weight another module reads itself, in Mamba mixers and in Gemma 3n: an adapter beside such a weight does
  nothing (peft#2556);
- linear layers with a product of their own, such as the grouped one of DeepSeek V4: PEFT and bitsandbytes would
  compute another product.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers, get_model_conversion_mapping
from transformers.pytorch_utils import Conv1D

from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant

LINEAR = (torch.nn.Linear, Conv1D)
"""Types of linear layers in language models; bitsandbytes' layers are subclasses of Linear."""
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
"""Names of routers and gates of a mixture, as a module's name or a part of its path."""
OTHER_SENSES = re.compile(r"vision|visual|image|audio|speech|multi_modal|mm_projector")
"""Finds parts of other senses inside the language model's own module (Phi 4 multimodal has its towers there)."""
_IN_MAMBA = frozenset({"out_proj", "x_proj", "dt_proj"})
"""Layers of a Mamba mixer whose weight the mixer's kernels take; `in_proj` is always called as a layer."""
_OWN_ADAPTERS = "_adapter_list."
_CHOOSING = frozenset({"indexer", "patcher"})
"""Names of the modules that choose tokens, in every model that has them."""
_ALTUP = "altup"
"""Gemma 3n's module whose weights are clamped in every forward pass of a training."""
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraTargets:
    """The layers of a base model that get an adapter.

    Attributes:
        modules: names of linear layers, and of embeddings if the recipe names them.
        parameters: names of parameters that PEFT adapts without a layer: experts, all of a layer in one
            three-dimensional parameter, and weights of linear layers whose names PEFT takes for experts.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def lora_targets(model: Any, spec: LoraSpec) -> LoraTargets:
    """The layers that get an adapter.

    Args:
        model: the base model, before PEFT has changed it.
        spec: the adapter. Names in `target_modules` choose layers by PEFT's rule: a layer's name or its end.
    """
    candidates = adaptable_layers(model) if spec.target_modules == [ALL_LINEAR] else _named(model, spec)
    experts = (
        tuple(name for name in candidates if name in expert_parameters(model)) if _parameters_allowed(spec) else ()
    )
    modules, parameters = [], list(experts)
    layers, taken = dict(model.named_modules()), _taken_for_experts(model)
    for name in candidates:
        if name not in layers:
            continue
        if _last(name) not in taken:
            modules.append(name)
        elif _parameters_allowed(spec) and not _is_quantised(layers[name]):
            parameters.append(name + _WEIGHT)
    return LoraTargets(modules=tuple(modules), parameters=tuple(parameters))


def adaptable_layers(model: Any) -> list[str]:
    """Names of all that `all-linear` stands for: linear layers, and parameters that hold experts."""
    head, text = model.get_output_embeddings(), _language_model(model)
    inside = {id(part) for part in text.modules()}
    read_directly = _layers_read_directly(model)
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, LINEAR)
        and part is not head
        and id(part) in inside
        and not _is_router(name, part)
        and not OTHER_SENSES.search(name)
        and name not in read_directly
        and not _has_own_product(part)
        and _OWN_ADAPTERS not in name
        and _CHOOSING.isdisjoint(name.split("."))
    ] + expert_parameters(model)


def expert_parameters(model: Any) -> list[str]:
    """Names of the parameters of the language model that hold the weights of all experts of a layer."""
    inside = {id(part) for part in _language_model(model).modules()}
    return [
        f"{name}.{own}"
        for name, part in model.named_modules()
        if id(part) in inside and "experts" in name.split(".") and not isinstance(part, LINEAR)
        for own, parameter in part.named_parameters(recurse=False)
        if parameter.dim() == 3 and not own.endswith("bias")
    ]


def expert_weights(model: Any) -> list[str]:
    """Names of all parameters with weights of experts, those in a form that PEFT does not adapt among them (DBRX)."""
    plain = (*LINEAR, torch.nn.Embedding, torch.nn.modules.conv._ConvNd)  # noqa: SLF001 (no public base class)
    return [
        f"{name}.{own}"
        for name, part in model.named_modules()
        if not isinstance(part, plain)
        for own, weight in part.named_parameters(recurse=False)
        if not own.endswith("bias")
        and min(weight.shape, default=1) > 1
        and (weight.dim() == 3 or (weight.dim() == 2 and "experts" in name.split(".")))
    ]


def layers_never_quantised(model: Any) -> list[str]:
    """Names of the linear layers that bitsandbytes must leave as they are, besides those that transformers leaves.

    - A layer whose weight another module reads itself: it would read the packed bytes.
    - A layer with a product of its own.
    - A router of a mixture: its choice hangs on small differences, and some read its weight themselves (LongCat Flash).
    - A layer that PEFT takes for an expert. It can only have an adapter on its parameter, which must be plain.

    Args:
        model: the base model; its weights are not read.
    """
    taken, read_directly = _taken_for_experts(model), _layers_read_directly(model)
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, LINEAR)
        and (_last(name) in taken or name in read_directly or _is_router(name, part) or _has_own_product(part))
    ]


def shortest_names(model: Any, names: Iterable[str]) -> list[str]:
    """The names for PEFT's configuration, sorted: the last part of each name if it means nothing else in the model."""
    chosen = set(names)
    others = {_last(name) for name, _ in model.named_modules() if name not in chosen}
    return sorted({name if _last(name) in others else _last(name) for name in chosen})


def shortest_parameter_names(model: Any, names: Iterable[str]) -> list[str]:
    """Like `shortest_names`, for parameters: the last two parts of each name if they mean nothing else in the model."""
    chosen = set(names)
    others = {_last_two(name) for name, _ in model.named_parameters() if name not in chosen}
    return sorted({name if _last_two(name) in others else _last_two(name) for name in chosen})


def _named(model: Any, spec: LoraSpec) -> list[str]:
    """The layers, embeddings and experts that the recipe names."""
    head = model.get_output_embeddings()
    kinds = (*LINEAR, torch.nn.Embedding)
    layers = [name for name, part in model.named_modules() if isinstance(part, kinds) and part is not head]
    return [
        name
        for name in (*layers, *expert_parameters(model))
        if any(name == asked or name.endswith(f".{asked}") for asked in spec.target_modules)
    ]


def _parameters_allowed(spec: LoraSpec) -> bool:
    """Whether PEFT can adapt parameters: it has no DoRA for them, and no dropout (peft:tuners/lora/layer.py)."""
    return spec.variant is not LoraVariant.DORA and float(spec.dropout) == 0


def _taken_for_experts(model: Any) -> frozenset[str]:
    """Last parts of names of linear layers that PEFT takes for names of experts."""
    if not expert_parameters(model):
        return frozenset()
    names = {_last(name) for name, part in model.named_modules() if isinstance(part, LINEAR)}
    return frozenset(name for name in names if _is_taken_for_experts(name, model))


def _is_taken_for_experts(name: str, model: Any) -> bool:
    """Whether PEFT reads a layer's name as that of an expert of an older transformers.

    It does so for mixtures that have dense layers or shared experts beside the experts (DeepSeek, Qwen 2 MoE): there
    `up_proj` in an adapter's configuration never means a linear layer.
    """
    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model=model, conversions=get_model_conversion_mapping(model))
    except ValueError:  # one of two names that stand for one parameter
        return True
    return name not in (config.target_modules or ())


def _language_model(model: Any) -> torch.nn.Module:
    """The part that reads text; the whole model if it has no other."""
    part = model.get_decoder()
    return part if isinstance(part, torch.nn.Module) else model


def _is_router(name: str, part: torch.nn.Module) -> bool:
    return not _ROUTERS.isdisjoint(name.split(".")) or "Router" in type(part).__name__


def _layers_read_directly(model: Any) -> set[str]:
    """Names of the linear layers whose weight another module reads."""
    mixers = tuple(f"{name}." for name, part in model.named_modules() if _is_mamba_mixer(part))
    return {
        name
        for name, part in model.named_modules()
        if isinstance(part, LINEAR)
        and (_ALTUP in name.split(".") or (_last(name) in _IN_MAMBA and name.startswith(mixers)))
    }


def _has_own_product(part: torch.nn.Module) -> bool:
    """Whether a layer is a subclass of torch's linear layer that computes something else; bitsandbytes' do not."""
    own = isinstance(part, torch.nn.Linear) and type(part).forward is not torch.nn.Linear.forward
    return own and not _is_quantised(part) and not _is_plain_product(type(part))  # type: ignore[arg-type] # torch hides a module's __hash__


@cache
def _is_plain_product(kind: type[torch.nn.Linear]) -> bool:
    """Whether a class with a `forward` of its own computes torch's product all the same, as Falcon's does.

    A small layer is asked, because the model may be without weights yet. What needs more than weight and bias is
    another product.
    """
    layer, values = torch.nn.Linear(8, 4), torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    expected = layer(values)
    layer.__class__ = kind
    try:
        found = layer(values)
    # A class may need whatever its own constructor would have set.
    except Exception:  # noqa: BLE001
        return False
    return found.shape == expected.shape and bool(torch.allclose(found, expected, atol=1e-5))


def _is_mamba_mixer(part: torch.nn.Module) -> bool:
    """Whether a module is a Mamba mixer of any generation: a state-space model with the parameters A and D."""
    own = {name for name, _ in part.named_parameters(recurse=False)}
    return {"A_log", "D"} <= own


def _is_quantised(part: torch.nn.Module) -> bool:
    return isinstance(part, Linear4bit | Linear8bitLt)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _last_two(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])
