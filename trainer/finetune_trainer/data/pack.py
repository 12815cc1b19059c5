"""Dividing the rows of one optimizer step into forward passes.

Rows are packed within a step, never across steps: the step sees the same rows, each with the same weight in the loss,
as without packing, so packing changes the speed and not the training. A forward pass holds rows one after the other
with no padding between; they cannot see each other (the model is asked, see train/isolation.py).
"""

from collections.abc import Sequence


def divide(lengths: Sequence[int], *, max_tokens: int, max_rows: int) -> list[list[int]]:
    """Divides rows into forward passes of at most `max_tokens` tokens and `max_rows` rows, as few as first-fit finds.

    Args:
        lengths: tokens of each row, all positive.
        max_tokens: most tokens of a pass; a row that is longer has a pass of its own.
        max_rows: most rows of a pass.

    Returns:
        For each pass the rows' indices, in rising order. Every row is in exactly one pass. The result depends on
        nothing but the arguments.
    """
    passes: list[list[int]] = []
    space: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[index]
        for number, free in enumerate(space):
            if length <= free and len(passes[number]) < max_rows:
                passes[number].append(index)
                space[number] -= length
                break
        else:
            passes.append([index])
            space.append(max_tokens - length)
    return [sorted(rows) for rows in sorted(passes, key=min)]
