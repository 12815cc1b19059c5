"""Bytes that a micro-batch saves for its backward pass, and bytes that it needs on top for a moment.

Counted from the tensors that transformers' decoders, PEFT's layers and TRL's head save and allocate, for a model with a
gated feed-forward layer (Llama's); others have less. Sizes below are numbers a token, unless they are called bytes.
"""

from dataclasses import dataclass
from enum import StrEnum

from finetune_trainer.contract.recipe.lora import LoraSpec, LoraVariant
from finetune_trainer.contract.recipe.model import Attention, QuantizationType
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import FLOAT32, adapted

_HEAD_TILE = {False: 2**20, True: 2**26}
"""Logits that are there at a time, off and on a GPU (train/lm_head.py)."""
_HEAD_TOKENS, _HEAD_VOCABULARY = 4096, 32768
"""The same of heads that are left to TRL: tokens and ids of a tile, whatever the vocabulary
(trl:kernels/chunked_logprob.py, TOKEN_CHUNK_SIZE; trl:trainer/utils.py, _CHUNKED_LOGPROB_CHUNK_SIZE)."""
_HEAD_TILES_ON_CPU = 7 * FLOAT32 + 1
"""Bytes for each logit of a tile without Triton: seven float32 copies and a mask (same file, _backward_tile)."""


class Masking(StrEnum):
    """How rows are kept apart, which decides what attention saves."""

    VARLEN = "varlen"
    """By their borders: nothing is quadratic."""
    DENSE = "dense"
    """By a mask over all pairs of tokens of a pass, of which torch's SDPA keeps a copy a layer in the products' type
    (aten/native/transformers/attention.cpp, convert_boolean_attn_mask); keys and values are repeated for every head."""
    EAGER = "eager"
    """By a mask, and every head's weights over all pairs are kept."""

    @classmethod
    def of(cls, attention: Attention) -> "Masking":
        """What the recipe's word comes to where the model has it; auto takes varlen."""
        match attention:
            case Attention.EAGER:
                return cls.EAGER
            case Attention.SDPA:
                return cls.DENSE
            case Attention.AUTO | Attention.VARLEN:
                return cls.VARLEN


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchShape:
    """The size of one micro-batch: one forward and backward pass.

    Attributes:
        tokens: its tokens, padding included.
        span: tokens that one token's row of the mask covers: all of a pack, or the longest row of a padded pass.
        gradient_checkpointing: keep only the inputs of the layers, and compute the rest again.
        keep_dequantized: keep the 4-bit weights as they were dequantized for the forward pass (model/folded_lora.py).
    """

    tokens: int
    span: int
    gradient_checkpointing: bool
    keep_dequantized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How numbers are held.

    Attributes:
        width: bytes of a number of the products (2 for bfloat16 and float16).
        cuda: on a GPU.
        quantization: type of the base weights.
    """

    width: int
    cuda: bool
    quantization: QuantizationType

    @property
    def inputs_shared(self) -> bool:
        """Whether layers with the same input save it once.

        PEFT casts the input to float32 where it believes that autocast is off, and autocast casts it back for each
        layer: for unquantised layers (peft:tuners/lora/layer.py), and for all on a CPU, since
        `torch.is_autocast_enabled()` speaks of CUDA only (peft:tuners/lora/bnb.py).
        """
        return self.width == FLOAT32 or (self.cuda and self.quantization is not QuantizationType.NONE)


def layer_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Bytes that one decoder layer saves of a micro-batch."""
    width = precision.width
    per_token = width * (_attention(shape, masking) + 4 * shape.intermediate + 2 * shape.routed * shape.hidden)
    # The two norms keep their inputs in float32.
    per_token += FLOAT32 * 2 * shape.hidden
    per_token += _adapters(shape, lora, precision) // shape.layers
    per_token += FLOAT32 * shape.heads
    match masking:
        case Masking.DENSE:
            per_token += width * micro_batch.span
        case Masking.EAGER:
            per_token += shape.heads * micro_batch.span * (FLOAT32 if width == FLOAT32 else FLOAT32 + width)
        case Masking.VARLEN:
            pass
    return micro_batch.tokens * per_token


def saved_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Bytes that a micro-batch saves from its forward to its backward pass."""
    mask = 0 if masking is Masking.VARLEN else micro_batch.tokens * micro_batch.span
    weights = FLOAT32 * sum(weight.size for weight in adapted(shape, lora)) if micro_batch.keep_dequantized else 0
    ends = micro_batch.tokens * shape.hidden * precision.width
    if micro_batch.gradient_checkpointing:
        return (
            mask + ends + shape.layers * micro_batch.tokens * shape.hidden * precision.width + weights // shape.layers
        )
    return mask + ends + weights + shape.layers * layer_bytes(shape, lora, precision, masking, micro_batch)


def transient_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Bytes that a micro-batch needs for a moment, on top of what it saves: the head's, or a layer's backward pass."""
    again = layer_bytes(shape, lora, precision, masking, micro_batch) if micro_batch.gradient_checkpointing else 0
    return max(
        _head(shape, lora, precision, micro_batch),
        again + _layer_backward(shape, lora, precision, masking, micro_batch),
    )


def _attention(shape: ModelShape, masking: Masking) -> int:
    """Queries, keys, values and the output."""
    keys = shape.keys if masking is Masking.VARLEN else shape.attention
    return 2 * shape.attention + 2 * keys


def _adapters(shape: ModelShape, lora: LoraSpec, precision: Precision) -> int:
    """Bytes a token of all adapters of all layers."""
    weights, width = adapted(shape, lora), precision.width
    inputs = sum(weight.shape[1] for weight in weights)
    size = width * lora.rank * len(weights)
    if float(lora.dropout) > 0:
        # The mask, a byte a number on a GPU (native_dropout) and a float32 elsewhere, and what is left of the input.
        size += inputs * (width + (1 if precision.cuda else FLOAT32))
    elif not precision.inputs_shared:
        size += width * max(0, inputs - shape.layers * shape.intermediate)
    elif weights:
        # The outputs of the two norms; other inputs are saved by the attention and by the feed-forward layer itself.
        size += width * 2 * shape.layers * shape.hidden
    if lora.variant is LoraVariant.DORA:
        # The outputs of the base layer and of the adapter, each before its scaling.
        size += width * 2 * sum(weight.shape[0] for weight in weights)
    return size


def _head(shape: ModelShape, lora: LoraSpec, precision: Precision, micro_batch: MicroBatchShape) -> int:
    """A tile of logits and the gradient of the last hidden state; the logits are never there as a whole."""
    # The logits in float32, and in the type of the products where that is another.
    each = FLOAT32 + (precision.width if precision.width != FLOAT32 else 0)
    tile = min(micro_batch.tokens * shape.vocabulary, _HEAD_TILE[precision.cuda]) * each
    if not (shape.plain_head and "lm_head" not in (lora.modules_to_save or [])):
        tokens = min(micro_batch.tokens, _HEAD_TOKENS)
        others = tokens * _HEAD_VOCABULARY * precision.width
        if not precision.cuda:
            others += tokens * min(shape.vocabulary, _HEAD_VOCABULARY) * _HEAD_TILES_ON_CPU
        tile = max(tile, others)
    return tile + micro_batch.tokens * shape.hidden * (FLOAT32 + precision.width)


def _layer_backward(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Gradients of the feed-forward layer, and the largest linear layer's weight as plain numbers."""
    size = micro_batch.tokens * (2 * shape.intermediate + shape.hidden) * precision.width
    if precision.quantization is not QuantizationType.NONE:
        size += shape.largest_linear * precision.width
    if not precision.inputs_shared:
        # Inputs and gradients in float32, before they are cast back.
        size += micro_batch.tokens * (2 * shape.intermediate + 4 * shape.hidden) * FLOAT32
    if masking is Masking.EAGER:
        size += 2 * micro_batch.tokens * micro_batch.span * shape.heads * FLOAT32
    if lora.variant is LoraVariant.DORA and (weights := adapted(shape, lora)):
        # The norm of the adapted weight is taken of the whole weight, and B A is made by way of a unit matrix
        # (peft:tuners/lora/dora.py).
        size += FLOAT32 * max(weight.shape[1] ** 2 + 3 * weight.size for weight in weights)
    return size
