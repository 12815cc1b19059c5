"""Bytes of the frozen base model, by its quantisation."""

import re
from collections import Counter
from dataclasses import dataclass

from finetune_trainer.contract.recipe.model import Quantization, QuantizationType
from finetune_trainer.memory.shape import ModelShape, is_head, named

_BLOCK = 64
"""Weights that share a constant in 4 bit (bitsandbytes:nn/modules.py, Params4bit.blocksize)."""
_CONSTANTS_BLOCK = 256
"""Constants that share one of their own with double quantisation (bitsandbytes:functional.py, quantize_4bit)."""
_TABLES = 4 * (16 + 256 + 1)
"""A layer's code tables and the constants' mean, in float32 (bitsandbytes:functional.py, QuantState)."""

_DECODER_LAYER = re.compile(r"^(.*?\.\d+)\.")
"""The decoder layer that a module belongs to."""


def model_bytes(shape: ModelShape, quantization: Quantization, width: int) -> int:
    """Bytes of the base model.

    4 bit is half a byte a weight and a float32 constant for 64 of them; with double quantisation the constant is a byte
    and 256 constants share a float32 (QLoRA, arXiv:2305.14314, section 3). int8 has a byte a weight and a float32 for
    every output (bitsandbytes, Int8Params.SCB).

    Args:
        shape: the model.
        quantization: the recipe's.
        width: bytes of a number that is not quantised.
    """
    linears = sum(_linear(weight.shape[0], weight.size, quantization, width) for weight in shape.linears)
    return linears + width * sum(weight.size for weight in shape.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSharding:
    """How the base model's weights are sharded over processes.

    Attributes:
        processes: how many there are.
        ignored_modules: names of modules that are not sharded, since they are trained (lora.modulesToSave).
    """

    processes: int
    ignored_modules: tuple[str, ...] = ()


def sharded_bytes(shape: ModelShape, quantization: Quantization, width: int, sharding: WeightSharding) -> int:
    """Bytes that one process has of a sharded base model (model/sharded_weights.py).

    Its share of everything, what is not divided, and the most that is whole for a moment: one decoder layer, or the
    embeddings, or the head, with the one that comes next.
    """
    layers: Counter[str] = Counter()
    ends: dict[str, int] = {}
    replicated = 0
    for weight in (*shape.linears, *shape.others):
        linear = weight in shape.linears
        size = _linear(weight.shape[0], weight.size, quantization, width) if linear else width * weight.size
        if named(weight, sharding.ignored_modules):
            replicated += size
        elif match := _DECODER_LAYER.match(weight.module):
            layers[match.group(1)] += size
        elif len(weight.shape) == 2:
            ends[weight.module] = size
        else:
            replicated += size
    if not shape.plain_head:
        # A head that is not plain stays whole, and so do embeddings that are the head as well.
        heads = [name for name in ends if is_head(name)] or list(ends)
        replicated += sum(ends.pop(name) for name in heads)
    layer = max(layers.values(), default=0)
    unsharded = layer + max(layer, *ends.values(), 0)
    return replicated + -(-(layers.total() + sum(ends.values())) // sharding.processes) + unsharded


def _linear(outputs: int, size: int, quantization: Quantization, width: int) -> int:
    match quantization.type:
        case QuantizationType.NF4 | QuantizationType.FP4:
            constants = -(-size // _BLOCK)
            if not quantization.double_quant:
                return -(-size // 2) + 4 * constants + 4 * 16
            return -(-size // 2) + constants + 4 * -(-constants // _CONSTANTS_BLOCK) + _TABLES
        case QuantizationType.INT8:
            return size + 4 * outputs
        case QuantizationType.NONE:
            return size * width
