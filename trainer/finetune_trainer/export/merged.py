"""The merged model: the base model's weights with the adapter in them, bfloat16, loadable without PEFT.

The adapter was trained on the unpacked quantised weights, so it is merged into exactly those. Merged into the original
weights it would correct an error that they do not have (peft#2321). Merged into packed weights it would itself be
rounded to 4 bits.

One layer at a time is unpacked and one shard at a time is held, whatever the size of the model.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.integrations import dequantize_module_weight
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from finetune_trainer.export.tokenizer import write_tokenizer
from finetune_trainer.model.files import DUPLICATE_WEIGHTS
from finetune_trainer.model.lora_targets import OTHER_SENSES

SHARD_BYTES = 2 << 30
"""Most bytes of a shard; a larger tensor has one of its own."""

_LAYER = re.compile(r"^(.*?\.\d+)\.")
_COPIED = ("generation_config.json", "*.py")
"""Files of the base model that hold for the merged one; code is there where the model needs its own."""
_DTYPE_KEYS = ("dtype", "torch_dtype")

Tensors = Iterator[tuple[str, torch.Tensor]]
NeedWhole = Callable[[torch.nn.Module], object]


def write_merged(
    model: Any,
    tokenizer: Any,
    base: Path,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
    unshard: NeedWhole | None = None,
) -> None:
    """Writes the merged model.

    Args:
        model: the trained PEFT model.
        tokenizer: its tokenizer.
        base: the base model's folder, whose configuration the merged model takes over.
        folder: where to; it must not be there yet.
        shard_bytes: most bytes of a shard.
        unshard: see `merged_tensors`.
    """
    folder.mkdir(parents=True)
    tensors = _named_as_in_files(merged_tensors(model, unshard), base, model.get_base_model().base_model_prefix)
    _write_shards(_with_other_senses(tensors, base), folder, shard_bytes)
    _write_json(folder / "config.json", _config(base, tied=_is_tied(model)))
    for pattern in _COPIED:
        for file in base.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    write_tokenizer(tokenizer, folder)


def merged_tensors(model: Any, unshard: NeedWhole | None = None) -> Tensors:
    """Every weight of the merged model under the name that checkpoints have for it, one layer after the other.

    A weight that two modules share comes once. Number types other than floating point stay.

    Args:
        model: the trained PEFT model.
        unshard: called with a module before its weights are read, when it has them for no longer than until the next
            call; None where all of them stay.
    """
    plain = model.get_base_model()
    for _, layer in groupby(_tensors(plain, unshard), lambda item: _layer(item[0])):
        # Names and shapes in memory are transformers' own for some architectures (experts of a mixture in one tensor).
        for name, tensor in revert_weight_conversion(plain, dict(layer)).items():
            yield name, _for_a_file(tensor)


def _with_other_senses(tensors: Tensors, base: Path) -> Tensors:
    """The tensors, and the weights for images and sound of the base model's files.

    transformers loads some image-text models as their language model alone (Qwen 3.5, Llama 4).
    """
    complete = False
    for name, tensor in tensors:
        complete = complete or OTHER_SENSES.search(name) is not None
        yield name, tensor
    for file in () if complete else _weight_files(base):
        with safe_open(file, "pt") as weights:
            for name in filter(OTHER_SENSES.search, weights.keys()):
                yield name, _for_a_file(weights.get_tensor(name))


def _named_as_in_files(tensors: Tensors, base: Path, prefix: str) -> Tensors:
    """The tensors under the names of the base model's files, where those have the language model under a prefix."""
    known: set[str] = set()
    for file in _weight_files(base):
        with safe_open(file, "pt") as weights:
            known.update(weights.keys())
    for name, tensor in tensors:
        longer = f"{prefix}.{name}"
        yield longer if name not in known and longer in known else name, tensor


def _weight_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith(DUPLICATE_WEIGHTS)]


def _layer(name: str) -> str:
    """The decoder layer that a weight belongs to; a weight outside of one is by itself."""
    match = _LAYER.match(name)
    return match.group(1) if match else name


def _tensors(model: torch.nn.Module, unshard: NeedWhole | None) -> Tensors:
    seen: set[int] = set()
    for prefix, module in _modules(model, ""):
        if unshard is not None:
            unshard(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
        if isinstance(module, ParamWrapper):
            merged = _merged_parameters(module)
            module = module.get_base_layer()  # noqa: PLW2901
            yield from ((f"{prefix}{name}", value) for name, value in merged.items())
            named: Any = [(name, value) for name, value in module.named_parameters(recurse=False) if name not in merged]
        elif isinstance(module, BaseTunerLayer):
            yield f"{prefix}weight", _merged_weight(module)
            module = module.get_base_layer()  # noqa: PLW2901
            named = [(name, value) for name, value in module.named_parameters(recurse=False) if name != "weight"]
        else:
            named = module.named_parameters(recurse=False)
        kept = [(name, value) for name, value in module.named_buffers(recurse=False) if _is_saved(module, name)]
        for name, value in [*named, *kept]:
            if id(value) not in seen:
                seen.add(id(value))
                plain = _plain_weight(module) if name == "weight" else value
                yield f"{prefix}{name}", plain.detach() if unshard is None else plain.detach().clone()


def _modules(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module with the prefix of its weights' names; adapted layers are not entered, wrappers are passed over."""
    if isinstance(module, ModulesToSaveWrapper):
        yield from _modules(module.modules_to_save[module.active_adapters[0]], prefix)
        return
    yield prefix, module
    if not isinstance(module, BaseTunerLayer):
        for name, child in module.named_children():
            yield from _modules(child, f"{prefix}{name}.")


def _merged_parameters(wrapper: Any) -> dict[str, torch.Tensor]:
    """The adapted parameters of a module with the adapter in them, in float32; PEFT nests a wrapper for each."""
    merged: dict[str, torch.Tensor] = {}
    while isinstance(wrapper, ParamWrapper):
        (adapter,) = wrapper.active_adapters
        with torch.no_grad():
            merged[wrapper.parameter_name] = wrapper.get_param().float() + wrapper.get_delta_weight(adapter).float()
        wrapper = wrapper.base_layer
    return merged


def _merged_weight(layer: Any) -> torch.Tensor:
    """The unpacked weight of an adapted layer with the adapter in it, in float32."""
    (adapter,) = layer.active_adapters
    merged: torch.Tensor
    with torch.no_grad():
        base = dequantize_module_weight(layer.get_base_layer()).float()
        if (variant := layer.lora_variant.get(adapter)) is not None:
            merged = variant.merge_safe(layer, adapter, base)
        else:
            merged = base + layer.get_delta_weight(adapter).float()
    return _as_in_files(layer.get_base_layer(), merged)


def _plain_weight(module: Any) -> torch.Tensor:
    """The unpacked weight of a layer without an adapter."""
    return _as_in_files(module, dequantize_module_weight(module))


def _as_in_files(module: Any, weight: torch.Tensor) -> torch.Tensor:
    """The weight in the shape that checkpoints have: bitsandbytes holds GPT-2's layers transposed, as linear ones."""
    return weight.t() if getattr(module, "source_cls", None) is Conv1D else weight


def _is_saved(module: torch.nn.Module, buffer: str) -> bool:
    return buffer not in module._non_persistent_buffers_set  # noqa: SLF001 (torch has no public word for it)


def _is_tied(model: Any) -> bool:
    """Whether embeddings and head are one weight still: an adapter or a copy of one of them parts them."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if any(isinstance(end, BaseTunerLayer) for end in ends):
        return False
    first, second = (end.weight for end in ends)
    return first is second


def _for_a_file(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on the CPU, in bfloat16, with storage of its own."""
    stored = tensor.to(device="cpu", dtype=torch.bfloat16 if tensor.is_floating_point() else None).contiguous()
    return stored if stored.untyped_storage().nbytes() == stored.nbytes else stored.clone()


def _write_shards(tensors: Tensors, folder: Path, shard_bytes: int) -> None:
    """Writes the tensors as safetensors: `model.safetensors`, or several files and an index."""
    parts: list[Path] = []
    places: dict[str, int] = {}
    total, held = 0, {}  # type: ignore[var-annotated]

    def flush() -> None:
        parts.append(folder / f"part-{len(parts)}")
        # Loaders ask for the format (transformers:modeling_utils.py).
        save_file(held, parts[-1], metadata={"format": "pt"})
        held.clear()

    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > shard_bytes:
            flush()
            size = 0
        held[name], places[name] = tensor, len(parts)
        size, total = size + tensor.nbytes, total + tensor.nbytes
    flush()
    if len(parts) == 1:
        parts[0].rename(folder / "model.safetensors")
        return
    names = [f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1)]
    for part, name in zip(parts, names, strict=True):
        part.rename(folder / name)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[part] for name, part in places.items()}}
    _write_json(folder / "model.safetensors.index.json", index)


def _config(base: Path, *, tied: bool) -> dict[str, Any]:
    """The base model's configuration for bfloat16 weights.

    It is the file's own and not the one in memory, which the training has changed (no cache, quantised).
    """
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config")
    for section in [config, *([text] if isinstance(text, dict) else [])]:
        for key in _DTYPE_KEYS:
            if key in section:
                section[key] = "bfloat16"
        if not tied:
            section["tie_word_embeddings"] = False
    if not any(key in config for key in _DTYPE_KEYS):
        # The older word, which every version reads.
        config["torch_dtype"] = "bfloat16"
    return config


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
