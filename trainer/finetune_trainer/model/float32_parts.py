"""Keeps what is trained in float32 beside products in half precision, and what flows between the layers in half.

Three things in the libraries mix them up. bitsandbytes casts a layer's bias to the type of its input, in place, also
when it is trained. PEFT's float32 copy of a module, of the embeddings for example, answers in float32. And so does a
LayerNorm under autocast on a GPU. bitsandbytes' layers answer in the type that they are given, so all later layers
would then compute and keep their activations in float32.
"""

from types import MethodType
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft.utils.other import ModulesToSaveWrapper


def separate_float32_parts(model: Any) -> None:
    """Separates a PEFT model's trained parts from products in half precision. Call it after `keep_in_float32`.

    Args:
        model: the PEFT model. Forward functions of layers with a trained bias are replaced, and trained copies of
            modules get a hook. In float32 the answers stay the same.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit | Linear8bitLt) and module.bias is not None and module.bias.requires_grad:
            _add_bias_outside(module)
        elif isinstance(module, ModulesToSaveWrapper) and module is not model.get_output_embeddings():
            # The head's scores are float32 in any case (train/lm_head.py).
            module.register_forward_hook(_answer_as_the_original)
    answer_in_the_inputs_type(model)


def answer_in_the_inputs_type(model: torch.nn.Module) -> None:
    """Makes torch's norms answer in the type of their input, as transformers' own RMSNorm does.

    Autocast on a GPU computes them in float32 and leaves the answer so (torch: "CUDA Ops that can autocast to
    float32").

    Args:
        model: its norms get a forward hook.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm | torch.nn.RMSNorm):
            module.register_forward_hook(lambda _, inputs, answer: answer.to(inputs[0].dtype) if inputs else answer)


def _add_bias_outside(layer: Any) -> None:
    """Replaces a quantised layer's forward function, so that its bias is added to the product and never cast in place.

    In float16 the gradient of a bias that was cast is float16 too, and torch's GradScaler refuses it (bitsandbytes:
    nn/modules.py, Linear4bit.forward and Linear8bitLt.forward).
    """
    with_bias = layer.forward

    def forward(_: Any, x: torch.Tensor) -> Any:
        bias = layer.bias
        if bias.dtype == (getattr(layer, "compute_dtype", None) or x.dtype):
            return with_bias(x)  # nothing to cast, and one operation less
        layer._parameters["bias"] = None  # noqa: SLF001 (assigning to `layer.bias` would do the same, by way of a check)
        try:
            answer = with_bias(x)
        finally:
            layer._parameters["bias"] = bias  # noqa: SLF001
        return answer + bias.to(answer.dtype)

    layer.forward = MethodType(forward, layer)


def _answer_as_the_original(module: Any, _: Any, answer: Any) -> Any:
    """Torch's forward hook: casts a tensor to the type of the module that the trained copy stands for."""
    kind = next(module.original_module.parameters()).dtype
    return answer.to(kind) if isinstance(answer, torch.Tensor) and answer.is_floating_point() else answer
