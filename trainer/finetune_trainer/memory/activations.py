"""The memory of a micro-batch: bytes saved for the backward pass, and the peak of temporary bytes on top of them.

The formulas count the tensors that transformers' decoders, PEFT's layers and TRL's head save and allocate. They are for
a model with a gated feed-forward layer, as Llama has; models without one need less. Sizes below are numbers per token,
unless they are called bytes.
"""

from dataclasses import dataclass
from enum import StrEnum

from finetune_trainer.contract.recipe.lora import LoraSpec, LoraVariant
from finetune_trainer.contract.recipe.model import Attention, QuantizationType
from finetune_trainer.memory.head_tile import HeadTile
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import FLOAT32, adapted, adapts_experts

_HEAD_TOKENS, _HEAD_VOCABULARY = 4096, 32768
"""Tokens and token ids of a tile for heads that TRL computes, for every vocabulary
(trl:kernels/chunked_logprob.py, TOKEN_CHUNK_SIZE; trl:trainer/utils.py, _CHUNKED_LOGPROB_CHUNK_SIZE)."""
_HEAD_TILES_ON_CPU = 7 * FLOAT32 + 1
"""Bytes for each logit of TRL's tile without Triton: seven float32 copies and a mask
(trl:kernels/chunked_logprob.py, _backward_tile)."""


class Masking(StrEnum):
    """The method that keeps attention within each row of a micro-batch. It decides which tensors attention saves."""

    VARLEN = "varlen"
    """By sequence lengths, without a mask: no tensor is quadratic in the tokens."""
    ROWS = "rows"
    """As varlen, on a GPU without a kernel for it: keys and values are repeated for every query head."""
    DENSE = "dense"
    """By a mask over all pairs of tokens of a pass. For each layer torch's SDPA keeps a copy of it in the compute type
    (aten/native/transformers/attention.cpp, convert_boolean_attn_mask). Keys and values are repeated for every query
    head."""
    EAGER = "eager"
    """By a mask; every head's attention weights over all pairs of tokens are saved."""

    @classmethod
    def of(cls, attention: Attention, *, kernel: bool = True) -> "Masking":
        """The masking of `model.attention` for a model that supports it. For auto it is varlen.

        Args:
            attention: the recipe's choice.
            kernel: whether the device computes grouped heads in varlen attention as they are (model/attention.py).
        """
        match attention:
            case Attention.EAGER:
                return cls.EAGER
            case Attention.SDPA:
                return cls.DENSE
            case Attention.AUTO | Attention.VARLEN:
                return cls.VARLEN if kernel else cls.ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchShape:
    """The size of one micro-batch: one forward and backward pass.

    Attributes:
        tokens: number of tokens, including padding.
        span: number of columns of the attention mask: all tokens of a pack, or the longest row of a padded pass.
        gradient_checkpointing: whether only the inputs of the layers are saved, and the rest is computed again.
        keep_dequantized: whether the weights that were dequantized in the forward pass are kept for the backward pass
            (model/folded_lora.py).
    """

    tokens: int
    span: int
    gradient_checkpointing: bool
    keep_dequantized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The number formats and the device of a training.

    Attributes:
        width: bytes of a number of the compute type (2 for bfloat16 and float16).
        cuda: whether the training runs on a GPU.
        quantization: quantisation type of the base weights.
        fused_norms: whether the norms keep their inputs in the compute type (model/fused_norms.py).
    """

    width: int
    cuda: bool
    quantization: QuantizationType
    fused_norms: bool = False

    def inputs_shared(self, lora: LoraSpec) -> bool:
        """Whether layers with the same input save only one copy of it, in the compute type.

        PEFT's own forward, which DoRA has, casts the input to float32 if it assumes that autocast is off, and autocast
        then casts it back for each layer. It does so for unquantised layers (peft:tuners/lora/layer.py). On a CPU it
        does so for all layers, because `torch.is_autocast_enabled()` reports only CUDA's autocast
        (peft:tuners/lora/bnb.py). Other adapters have a forward that casts nothing (model/fused_lora.py).
        """
        quantised_on_gpu = self.cuda and self.quantization is not QuantizationType.NONE
        return lora.variant is not LoraVariant.DORA or self.width == FLOAT32 or quantised_on_gpu


def layer_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Bytes that one decoder layer saves for the backward pass of a micro-batch."""
    width = precision.width
    per_token = width * (_attention(shape, masking) + 4 * shape.intermediate + 2 * shape.routed * shape.hidden)
    # The two norms save their inputs, those of transformers in float32.
    per_token += (width if precision.fused_norms else FLOAT32) * 2 * shape.hidden
    per_token += _adapters(shape, lora, precision) // shape.layers
    per_token += FLOAT32 * shape.heads
    match masking:
        case Masking.DENSE:
            per_token += width * micro_batch.span
        case Masking.EAGER:
            per_token += shape.heads * micro_batch.span * (FLOAT32 if width == FLOAT32 else FLOAT32 + width)
        case Masking.VARLEN | Masking.ROWS:
            pass
    return micro_batch.tokens * per_token


def saved_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Bytes that a micro-batch saves in its forward pass for its backward pass."""
    mask = 0 if masking in (Masking.VARLEN, Masking.ROWS) else micro_batch.tokens * micro_batch.span
    weights = FLOAT32 * sum(weight.size for weight in adapted(shape, lora)) if micro_batch.keep_dequantized else 0
    ends = micro_batch.tokens * shape.hidden * precision.width
    weights += _merged_experts(shape, lora, precision)
    if micro_batch.gradient_checkpointing:
        return (
            mask + ends + shape.layers * micro_batch.tokens * shape.hidden * precision.width + weights // shape.layers
        )
    return mask + ends + weights + shape.layers * layer_bytes(shape, lora, precision, masking, micro_batch)


def transient_bytes(
    shape: ModelShape, lora: LoraSpec, precision: Precision, masking: Masking, micro_batch: MicroBatchShape
) -> int:
    """Largest number of temporary bytes of a micro-batch, on top of the saved ones.

    It is that of the output head or that of one layer's backward pass, whichever is larger.
    """
    again = layer_bytes(shape, lora, precision, masking, micro_batch) if micro_batch.gradient_checkpointing else 0
    return max(
        _head(shape, lora, precision, micro_batch),
        again + _layer_backward(shape, lora, precision, masking, micro_batch),
    )


def _merged_experts(shape: ModelShape, lora: LoraSpec, precision: Precision) -> int:
    """Bytes of all experts with their adapter in them: PEFT computes these weights in every forward pass.

    They are saved for the backward pass, and have a gradient of the same size there (peft:tuners/lora/layer.py,
    ParamWrapper).
    """
    return precision.width * sum(weight.size for weight in shape.experts) if adapts_experts(lora) else 0


def _attention(shape: ModelShape, masking: Masking) -> int:
    """Numbers per token that attention saves: queries, keys, values and the output."""
    keys = shape.keys if masking is Masking.VARLEN else shape.attention
    return 2 * shape.attention + 2 * keys


def _adapters(shape: ModelShape, lora: LoraSpec, precision: Precision) -> int:
    """Bytes per token that the adapters of all layers save."""
    weights, width = adapted(shape, lora), precision.width
    inputs = sum(weight.shape[1] for weight in weights)
    size = width * lora.rank * len(weights)
    if float(lora.dropout) > 0:
        # The dropout mask (a byte per number on a GPU by native_dropout, else a float32) and the input after dropout.
        size += inputs * (width + (1 if precision.cuda else FLOAT32))
    elif not precision.inputs_shared(lora):
        size += width * max(0, inputs - shape.layers * shape.intermediate)
    elif weights:
        # The outputs of the two norms. Attention and the feed-forward layer save the other inputs anyway.
        size += width * 2 * shape.layers * shape.hidden
    if lora.variant is LoraVariant.DORA:
        # The outputs of the base layer and of the adapter before they are scaled.
        size += width * 2 * sum(weight.shape[0] for weight in weights)
    return size


def _head(shape: ModelShape, lora: LoraSpec, precision: Precision, micro_batch: MicroBatchShape) -> int:
    """Temporary bytes of the head: a tile of logits, and the gradient of the last hidden state.

    The logits of all tokens are never in memory at the same time.
    """
    # The logits in float32, and in the compute type if it is another.
    each = FLOAT32 + (precision.width if precision.width != FLOAT32 else 0)
    tile = HeadTile.of(shape.vocabulary, cuda=precision.cuda).elements(micro_batch.tokens) * each
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
    """Temporary bytes of a layer's backward pass: its feed-forward gradients, and the largest dequantized weight."""
    size = micro_batch.tokens * (2 * shape.intermediate + shape.hidden) * precision.width
    if precision.quantization is not QuantizationType.NONE:
        size += shape.largest_linear * precision.width
    # The gradient of a layer's merged experts.
    size += _merged_experts(shape, lora, precision) // shape.layers
    if not precision.inputs_shared(lora):
        # Inputs and gradients in float32, before autocast casts them back.
        size += micro_batch.tokens * (2 * shape.intermediate + 4 * shape.hidden) * FLOAT32
    if masking is Masking.EAGER:
        size += 2 * micro_batch.tokens * micro_batch.span * shape.heads * FLOAT32
    if lora.variant is LoraVariant.DORA and (weights := adapted(shape, lora)):
        # DoRA computes the norm of the whole adapted weight. PEFT computes BA by applying the adapter to an identity
        # matrix (peft:tuners/lora/dora.py).
        size += FLOAT32 * max(weight.shape[1] ** 2 + 3 * weight.size for weight in weights)
    return size
