"""Attention over packed rows without a mask: every row is computed separately, as the flash-attn package does.

SDPA separates packed rows with a dense mask. The mask's size and work grow with the square of the pack's length: a step
over 8192 tokens of short rows takes 3.3 times as long. transformers accepts a custom attention function
(AttentionInterface). The function gets the cumulative sequence lengths of the rows in the keyword arguments of
transformers' flash attention (`cu_seq_lens_q`), which are computed once for each pass.
"""

from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "finetune_varlen"
"""Name of the function among transformers' attention implementations. transformers treats names with `flash` as a
special case, so the name must not have it."""

_SUPPORTED_LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Types of layers (transformers' `layer_types`) that this function can compute."""


def register_varlen() -> None:
    """Registers `attn_implementation=NAME` in transformers. A second call changes nothing."""
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, no_mask_for_packs)


def obstacle_to_varlen(architecture: Any, config: Any) -> str | None:
    """Why a model does not support varlen attention, or None if it does.

    Args:
        architecture: the model's class. A class that supports flash attention passes sequence lengths and sliding
            window to the attention function. A class that supports SDPA needs neither attention sinks nor soft-capped
            scores.
        config: the model's configuration.
    """
    needed = ("_supports_attention_backend", "_supports_flash_attn", "_supports_sdpa")
    # The attributes are private upstream, but transformers itself decides by them.
    if not all(getattr(architecture, name, False) for name in needed):
        return f"models of type {config.model_type} do not tell the attention where rows begin"
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if other := sorted(kinds - _SUPPORTED_LAYER_TYPES):
        return f"this model has layers of the kind {', '.join(other)}"
    return None


def is_varlen(model: Any) -> bool:
    """Whether a model was loaded with varlen attention, so that its forward pass accepts `cu_seq_lens_arguments`."""
    return bool(getattr(model.config, "_attn_implementation", None) == NAME)


def is_eager(model: Any) -> bool:
    """Whether a model was loaded with eager attention, which saves every head's weights over all pairs of tokens."""
    return bool(getattr(model.config, "_attn_implementation", None) == "eager")


def cu_seq_lens_arguments(lengths: list[int], device: torch.device) -> dict[str, Any]:
    """The keyword arguments of a forward pass with the sequence lengths of a pack, under transformers' names.

    Args:
        lengths: tokens of each row, in order.
        device: device of the pack.

    Returns:
        Cumulative sequence lengths (int32, shape (rows + 1,)) and largest length, for queries and for keys.
    """
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32).to(device)
    longest = max(lengths)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


def no_mask_for_packs(
    *args: Any, attention_mask: torch.Tensor | None = None, allow_is_causal_skip: bool = True, **kwargs: Any
) -> torch.Tensor | None:
    """The mask function of varlen attention: None for a pack, else SDPA's mask.

    A pack is recognised by two properties. It has no padding mask. And transformers has found that its positions start
    again at 0, and so sets `allow_is_causal_skip` to false. Padded rows (evaluation, generation) have a padding mask.
    """
    if attention_mask is None and not allow_is_causal_skip:
        return None
    mask: torch.Tensor | None = sdpa_mask(
        *args, attention_mask=attention_mask, allow_is_causal_skip=allow_is_causal_skip, **kwargs
    )
    return mask


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a pack.

    Without `cu_seq_lens_q` it is SDPA: for padded rows, and for generation with a cache.

    Args:
        module: the attention layer.
        query: shape (1, heads, tokens, head size); the rows of a pack are concatenated.
        key: shape (1, key heads, tokens, head size); heads is a multiple of key heads.
        value: shape as `key`.
        attention_mask: the mask of rows that are not packed.
        dropout: share of the attention weights that is dropped.
        scaling: factor of the scores; None for 1 / sqrt(head size).
        sliding_window: number of tokens to which a token attends, including itself; None for no limit.
        cu_seq_lens_q: cumulative lengths of the rows, from 0, int32, shape (rows + 1,).
        max_length_q: tokens of the longest row.
        **kwargs: further arguments of SDPA.

    Returns:
        The output, shape (1, tokens, heads, head size), and None for the attention weights, which are not computed.
    """
    if cu_seq_lens_q is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    window = sliding_window if sliding_window is not None and sliding_window < max_length_q else None
    if dropout == 0 and _kernel_takes(query, value):
        output = varlen_kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, window)
    else:
        output = _row_by_row(query, key, value, cu_seq_lens_q.tolist(), dropout, scaling, window)
    return output, None


def _kernel_takes(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's kernel supports the tensors.

    Flash attention needs an Ampere GPU or later, half precision, and a head size of at most 256 that is a multiple
    of 8.
    """
    size = query.shape[-1]
    fits = size == value.shape[-1] and size % 8 == 0 and size <= 256
    return fits and has_varlen_kernel(query.device, query.dtype)


def has_varlen_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch's varlen kernel runs on a device, with numbers of this type."""
    half = dtype in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0)


def avoid_cudnn_attention() -> None:
    """Turns off cuDNN's attention for this process, which torch prefers on Hopper and Blackwell GPUs.

    cuDNN builds a graph for every geometry (tokens, rows, longest row), and nearly every micro-batch has its own. A
    build takes tens of milliseconds, as long as the attention of several layers, and torch never frees a graph
    (pytorch#191576, pytorch#155958). Flash attention takes any geometry. On other devices nothing changes.
    """
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)


def varlen_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Varlen attention by torch's kernel (`torch.nn.attention.varlen`).

    Args:
        query: shape (1, heads, tokens, head size).
        key: shape (1, key heads, tokens, head size).
        value: shape as `key`.
        ends: cumulative lengths of the rows, from 0, int32, shape (rows + 1,).
        longest: tokens of the longest row.
        scaling: factor of the scores; None for 1 / sqrt(head size).
        window: number of tokens to which a token attends, including itself; None for no limit.

    Returns:
        Shape (1, tokens, heads, head size).
    """
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    output: Any = varlen_attn(
        q,
        k,
        v,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    rows: torch.Tensor = output[None]
    return rows


def _row_by_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: list[int],
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Varlen attention without the kernel: one call of SDPA for each row. Arguments and result as `varlen_kernel`."""
    if query.is_cuda:
        # Without flash attention (T4, float32) only torch's quadratic kernel takes grouped heads.
        key, value = repeat_heads(key, query.shape[1]), repeat_heads(value, query.shape[1])
    lengths = [end - start for start, end in pairwise(ends)]
    parts = []
    for q, k, v in zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), strict=True):
        near = None if window is None or q.shape[2] <= window else _band(q.shape[2], window, q.device)
        part = scaled_dot_product_attention(
            q, k, v, near, dropout, is_causal=near is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1)


def repeat_heads(part: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values with a head for every query head. Neighbouring query heads share one, as in `enable_gqa`.

    Args:
        part: shape (1, key heads, tokens, head size).
        heads: number of query heads, a multiple of the key heads.
    """
    return part if part.shape[1] == heads else part.repeat_interleave(heads // part.shape[1], dim=1)


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """The mask of a row with a sliding window: shape (length, length), True where the query attends to the key."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return seen.tril().triu(1 - window)
