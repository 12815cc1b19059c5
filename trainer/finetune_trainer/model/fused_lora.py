"""Adds a layer's LoRA term to the layer's output within one matrix product.

A layer with an adapter is y = f(x) + s(xAᵀ)Bᵀ, where f is the frozen layer, quantised or not (Hu et al., LoRA, 2021,
section 4.1; s is PEFT's scaling). PEFT copies f(x) for 4-bit layers, computes the term, scales it, and writes the sum
into one more tensor; the backward pass scales again. On a GPU each of these passes over y waits for memory. A matrix
product can scale and add while it writes its result (BLAS: gemm). With g the gradient of y, the gradients are
dx = s(gB)A, dA = s(gB)ᵀx, dB = s gᵀ(xAᵀ). Only thin matrices are scaled.

The terms are PEFT's, the order of rounding is not: PEFT rounds (xAᵀ)Bᵀ, then its multiple by s, then the sum; here only
the sum is rounded.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt
from peft.tuners.lora.layer import Linear


def fuse_lora(model: torch.nn.Module) -> None:
    """Replaces the forward functions of a PEFT model's linear layers, of any quantisation.

    PEFT's own are called for what is not plain LoRA: DoRA, merged, disabled or several adapters.
    """
    for layer in model.modules():
        # The output of transformers' Conv1D is a view, which cannot be changed in place without a copy.
        if isinstance(layer, Linear | Linear4bit | Linear8bitLt) and isinstance(layer.base_layer, torch.nn.Linear):
            _fuse(layer)


def plain_adapter(layer: Any) -> str | None:
    """The name of a PEFT layer's adapter if it has only one, active, apart from the weight, and of plain LoRA."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    plain = name in layer.lora_A and name not in layer.lora_variant and not layer.lora_bias[name]
    return name if plain else None


def _fuse(layer: Any) -> None:
    pefts = layer.forward

    def forward(_: Any, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
        name = None if arguments or named else plain_adapter(layer)
        if name is None or x.dtype != _dtype_of_products(layer.lora_A[name].weight):
            output: torch.Tensor = pefts(x, *arguments, **named)
            return output
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        total: torch.Tensor = AddLora.apply(layer.base_layer(x), layer.lora_dropout[name](x), a, b, layer.scaling[name])
        return total

    layer.forward = MethodType(forward, layer)


def _dtype_of_products(weight: torch.Tensor) -> torch.dtype:
    """The type in which a product with this weight is computed: autocast's, or the weight's own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class AddLora(torch.autograd.Function):
    """The sum y + s(xAᵀ)Bᵀ, computed in the memory of y, with gradients for y, x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Computes the sum.

        Args:
            ctx: torch's context.
            y: the output of the frozen layer, shape (…, out). It is overwritten, so nothing else may need it.
            x: the adapter's input, shape (…, in), of the type of `y`.
            a: the adapter's matrix A, shape (rank, in), of any type.
            b: the adapter's matrix B, shape (out, rank), of any type.
            scaling: s.

        Returns:
            Shape (…, out).
        """
        inner = x.flatten(0, -2) @ a.to(x.dtype).t()
        ctx.save_for_backward(x, inner, a, b)
        ctx.scaling = scaling
        outer = b.to(x.dtype).t()
        # torch.nn.Linear with a bias returns a view. Autograd would copy it to know what was overwritten.
        if y._is_view() or not y.is_contiguous():  # noqa: SLF001 (torch has no public name for it)
            return torch.addmm(y.flatten(0, -2), inner, outer, alpha=scaling).view(y.shape)
        y.view(-1, y.shape[-1]).addmm_(inner, outer, alpha=scaling)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients with respect to `y`, `x`, `a` and `b`."""
        (gradient,) = outer
        x, inner, a, b = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        thin = (rows @ b.to(rows.dtype)).mul_(ctx.scaling)
        by_x = (thin @ a.to(rows.dtype)).view(x.shape) if ctx.needs_input_grad[1] else None
        by_a = (thin.t() @ x.flatten(0, -2)).to(a.dtype)
        by_b = (rows.t() @ inner).to(b.dtype).mul_(ctx.scaling)
        return gradient, by_x, by_a, by_b, None
