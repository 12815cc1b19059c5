"""The memory of the frozen base model, by its quantisation."""

import re
from collections import Counter
from dataclasses import dataclass

from finetune_trainer.contract.recipe.model import Quantization, QuantizationType
from finetune_trainer.memory.shape import ModelShape, is_head, named

_BLOCK = 64
"""4-bit weights that share a scale (bitsandbytes:nn/modules.py, Params4bit.blocksize)."""
_CONSTANTS_BLOCK = 256
"""Scales that share a scale of their own with double quantisation (bitsandbytes:functional.py, quantize_4bit)."""
_TABLES = 4 * (16 + 256 + 1)
"""Bytes of a layer's code tables and of the scales' mean, in float32 (bitsandbytes:functional.py, QuantState)."""

_DECODER_LAYER = re.compile(r"^(.*?\.\d+)\.")
"""Finds the name of a module's decoder layer."""


def model_bytes(shape: ModelShape, quantization: Quantization, width: int) -> int:
    """Bytes of the base model.

    A 4-bit weight takes half a byte, and 64 weights share a float32 scale. With double quantisation a scale takes one
    byte, and 256 scales share a float32 (QLoRA, arXiv:2305.14314, section 3). An int8 weight takes one byte, and every
    output of a layer has a float32 scale (bitsandbytes, Int8Params.SCB).

    Args:
        shape: the model's sizes.
        quantization: the recipe's quantisation.
        width: bytes of a number that is not quantised.
    """
    quantised = sum(_linear(weight.shape[0], weight.size, quantization, width) for weight in shape.quantised)
    plain = (weight for weight in shape.linears if weight.module in shape.never_quantised)
    return quantised + width * sum(weight.size for weight in (*plain, *shape.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSharding:
    """How the base model's weights are sharded over processes.

    Attributes:
        processes: number of processes.
        ignored_modules: names of modules that are not sharded, because they are trained (lora.modulesToSave).
    """

    processes: int
    ignored_modules: tuple[str, ...] = ()


def sharded_bytes(shape: ModelShape, quantization: Quantization, width: int, sharding: WeightSharding) -> int:
    """Peak bytes of a sharded base model in one process (model/sharded_weights.py).

    The sum of three parts: the process's shards, the weights that are not sharded, and the modules that are unsharded
    at the same time. These are one decoder layer and the next module: a decoder layer, the embeddings or the head.

    Args:
        shape: the model's sizes.
        quantization: the recipe's quantisation.
        width: bytes of a number that is not quantised.
        sharding: the number of processes, and the modules that are not sharded.
    """
    quantised = set(shape.quantised)
    layers: Counter[str] = Counter()
    ends: dict[str, int] = {}
    replicated = 0
    for weight in (*shape.linears, *shape.others):
        size = width * weight.size
        if weight in quantised:
            size = _linear(weight.shape[0], weight.size, quantization, width)
        if named(weight, sharding.ignored_modules):
            replicated += size
        elif match := _DECODER_LAYER.match(weight.module):
            layers[match.group(1)] += size
        elif len(weight.shape) == 2:
            ends[weight.module] = size
        else:
            replicated += size
    if not shape.plain_head:
        # A head that is not plain is not sharded. Tied embeddings are the head, so they are not sharded either.
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
