"""Whether the rows of a micro-batch influence each other: the model itself is asked.

Attention kernels, hybrid layers, experts with a capacity and a library's next version may each treat the rows of a
micro-batch differently. A mask that is assumed and not there trains on neighbours' text in silence. So the loaded model
is asked, with a few tokens.

What a row's logits are alone is compared with what they are beside other rows. They may differ by rounding: experts,
and kernels in general, compute in another order when they get more tokens. How much rounding is, the model says
itself: its inputs are changed by about one rounding error, and the change of the logits is measured. A rounding error
that sends a token to other experts is in that measure too.
"""

from enum import StrEnum
from typing import Any

import torch

from finetune_trainer.model.attention import is_varlen
from finetune_trainer.train.micro_batches import packed_micro_batch, padded_micro_batch

_ROW = 6
_NEIGHBOUR = 26
_TRIALS = 3
_TOLERANCE = 8.0
"""Rounding errors of all layers together are larger than one at the input: about the square root of their number."""
_LARGEST_TOLERANCE = 0.25
"""The most that rounding is taken for, however deep a model in half precision is. Rows that see each other change
their logits by about the logits' size."""
_FLOAT32_STEPS = 4.0
"""Sums are accumulated in float32. Their rounding errors are a few units in the last place (Higham, 2002, section 3.1,
for sums of a hundred terms)."""


class Arrangement(StrEnum):
    """How rows share a micro-batch."""

    PACKED = "packed"
    """One after the other in one sequence."""
    PADDED = "padded"
    """Side by side, with padding."""
    ALONE = "alone"
    """Every row has a micro-batch of its own."""


def rows_are_isolated(model: Any, vocabulary: int, arrangement: Arrangement = Arrangement.PACKED) -> bool:
    """Whether a row is computed alike whatever shares its micro-batch, and alone.

    One neighbour repeats the row's own tokens. If experts take a limited number of tokens, the repetitions fill the
    experts of the row's tokens. The second neighbour has other tokens, and the third repeats one token.

    Args:
        model: the causal language model. It is asked in the mode of training, and put back.
        vocabulary: number of token ids to choose from.
        arrangement: packed or padded.
    """
    was_training = model.training
    # Some models compute differently in training. They have no dropout (model/deterministic_forward.py).
    model.train()
    try:
        with torch.no_grad():
            return _is_isolated(model, vocabulary, arrangement)
    finally:
        model.train(was_training)


def _is_isolated(model: Any, vocabulary: int, arrangement: Arrangement) -> bool:
    row = (torch.arange(_ROW, device=model.device) * 3 + 5) % vocabulary
    steps = torch.arange(_NEIGHBOUR, device=model.device)
    neighbours = [row[steps % _ROW], (steps * 7 + 1) % vocabulary, torch.full_like(steps, 2 % vocabulary)]
    alone = _logits_of_last(model, [row], arrangement)
    beside = [_logits_of_last(model, [neighbour, row], arrangement) for neighbour in neighbours]
    if all(torch.equal(logits, alone) for logits in beside):
        return True
    allowed = _TOLERANCE * max(_distance(_with_noise(model, row, arrangement, seed), alone) for seed in range(_TRIALS))
    differences = [_distance(logits, alone) for logits in beside]
    return max(differences) <= min(allowed, _LARGEST_TOLERANCE)


def _logits_of_last(model: Any, rows: list[torch.Tensor], arrangement: Arrangement) -> torch.Tensor:
    """The last row's logits, float32, shape (tokens, vocabulary)."""
    if arrangement is Arrangement.PACKED:
        inputs = packed_micro_batch(rows, rows, varlen=is_varlen(model))
    else:
        inputs = padded_micro_batch(rows, rows, pad_id=0)
    del inputs["labels"]
    logits: torch.Tensor = model(**inputs, use_cache=False).logits.float()
    own = logits[0, -len(rows[-1]) :] if arrangement is Arrangement.PACKED else logits[-1, : len(rows[-1])]
    return own - own.mean(dim=-1, keepdim=True)


def _with_noise(model: Any, row: torch.Tensor, arrangement: Arrangement, seed: int) -> torch.Tensor:
    """The row's logits alone, with embeddings that are off by about a rounding error."""
    generator = torch.Generator().manual_seed(seed)

    def shake(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        size = max(torch.finfo(embedded.dtype).eps, _FLOAT32_STEPS * torch.finfo(torch.float32).eps)
        signs = torch.randint(2, embedded.shape, generator=generator).to(embedded.device) * 2 - 1
        return embedded * (1 + size * signs).to(embedded.dtype)

    hook = model.get_input_embeddings().register_forward_hook(shake)
    try:
        return _logits_of_last(model, [row], arrangement)
    finally:
        hook.remove()


def _distance(logits: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest distance of a token's logits, relative to their size."""
    distances = (logits - reference).norm(dim=-1) / reference.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return float(distances.max().nan_to_num(nan=torch.inf))
