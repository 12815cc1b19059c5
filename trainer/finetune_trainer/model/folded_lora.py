"""Adds LoRA to the dequantized weight of a 4-bit layer for one matrix product, in float32.

A layer with an adapter is y = xWᵀ + s(xAᵀ)Bᵀ (Hu et al., LoRA, 2021, section 4.1; s is PEFT's scaling). PEFT computes
both terms, scales and adds. That takes products of thin matrices, which are slow on every processor, and more passes
over y, forward and backward. W must be dequantized for every product anyway. Adding sBA to it costs r multiplications
for each weight, independent of the number of tokens, and leaves one product: y = x(W + sBA)ᵀ. With g the gradient of y,
the gradients are dx = g(W + sBA), dA = s(gB)ᵀx, dB = s gᵀ(xAᵀ).

In half precision nothing is folded: rounding W + sBA would lose the small sBA of an adapter at the start of training.
There the term is added to the product (fused_lora.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora.bnb import Linear4bit

from finetune_trainer.model.fused_lora import plain_adapter

_TOKENS_A_RANK = 8
"""Smallest number of tokens for which folding is used, per unit of rank. At this number folding takes an eighth of the
product's time, and less with more tokens."""


class FoldedLora:
    """Folds the adapters of a PEFT model's 4-bit layers in every forward pass in which that is possible.

    Args:
        model: the PEFT model. The forward functions of its 4-bit layers are replaced.
        kept: whether W + sBA stays in memory from the forward to the backward pass. Otherwise it is computed again.
    """

    def __init__(self, model: torch.nn.Module, *, kept: bool) -> None:
        self._kept = kept
        self._held: dict[tuple[torch.nn.Module, str], torch.Tensor] | None = None
        for layer in model.modules():
            if isinstance(layer, Linear4bit):
                self._fold(layer)

    @contextmanager
    def cached_weights(self) -> Iterator[None]:
        """A context in which the adapter must not change. Each W + sBA is computed once and kept until its end."""
        self._held = {}
        try:
            yield
        finally:
            self._held = None

    def _fold(self, layer: Any) -> None:
        apart = layer.forward

        def forward(_: Any, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
            name = None if arguments or named else _foldable(layer, x)
            if name is None:
                output: torch.Tensor = apart(x, *arguments, **named)
                return output
            a, b, bias = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.base_layer.bias
            weight = partial(self._weight, layer, name)
            product: torch.Tensor = FoldedProduct.apply(x, a, b, weight, layer.scaling[name], self._kept)
            return product if bias is None else product + bias

        layer.forward = MethodType(forward, layer)

    def _weight(self, layer: Any, name: str) -> torch.Tensor:
        """W + sBA, shape (out, in)."""
        held = {} if self._held is None else self._held
        if (layer, name) not in held:
            packed, a, b = layer.base_layer.weight, layer.lora_A[name].weight, layer.lora_B[name].weight
            weight: torch.Tensor = dequantize_4bit(packed.data, packed.quant_state)
            held[layer, name] = weight.addmm_(b, a, alpha=layer.scaling[name])
        return held[layer, name]


def _foldable(layer: Any, x: torch.Tensor) -> str | None:
    """The name of the layer's adapter if it can be folded for this input; None if the layer's own forward is used."""
    name = plain_adapter(layer)
    if name is None:
        return None
    dropout = layer.lora_dropout[name]
    if layer.training and not isinstance(dropout, torch.nn.Identity):
        return None
    if x.numel() < _TOKENS_A_RANK * layer.r[name] * x.shape[-1]:
        return None
    state, bias = layer.base_layer.weight.quant_state, layer.base_layer.bias
    kinds = {x.dtype, state.dtype, layer.lora_A[name].weight.dtype, *([] if bias is None else [bias.dtype])}
    return None if kinds != {torch.float32} or torch.is_autocast_enabled(x.device.type) else name


class FoldedProduct(torch.autograd.Function):
    """The product x(W + sBA)ᵀ for a frozen W, in float32, with gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        fold: Callable[[], torch.Tensor],
        scaling: float,
        kept: bool,  # noqa: FBT001 (torch passes by position)
    ) -> Any:
        """Computes the product.

        Args:
            ctx: torch's context.
            x: shape (…, in).
            a: the adapter's matrix A, shape (rank, in).
            b: the adapter's matrix B, shape (out, rank).
            fold: computes W + sBA, shape (out, in).
            scaling: s.
            kept: whether W + sBA is saved for the backward pass.

        Returns:
            Shape (…, out).
        """
        weight = fold()
        ctx.save_for_backward(x, a, b, weight if kept else None)
        ctx.fold, ctx.scaling = fold, scaling
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients with respect to `x`, `a` and `b`."""
        x, a, b, weight = ctx.saved_tensors
        if ctx.needs_input_grad[0] and weight is None:
            weight = ctx.fold()
        by_x = outer[0] @ weight if ctx.needs_input_grad[0] else None
        gradient, x = outer[0].flatten(0, -2), x.flatten(0, -2)
        by_a = ((gradient @ b).t() @ x).mul_(ctx.scaling)
        by_b = (gradient.t() @ (x @ a.t())).mul_(ctx.scaling)
        return by_x, by_a, by_b, None, None, None
