"""Bytes of the frozen base model, by its quantisation."""

from finetune_trainer.contract.recipe.model import Quantization, QuantizationType
from finetune_trainer.memory.shape import ModelShape

_BLOCK = 64
"""Weights that share a constant in 4 bit (bitsandbytes:nn/modules.py, Params4bit.blocksize)."""
_CONSTANTS_BLOCK = 256
"""Constants that share one of their own with double quantisation (bitsandbytes:functional.py, quantize_4bit)."""
_TABLES = 4 * (16 + 256 + 1)
"""A layer's code tables and the constants' mean, in float32 (bitsandbytes:functional.py, QuantState)."""


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
