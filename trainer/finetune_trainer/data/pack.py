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


def spread(lengths: Sequence[int], *, ranks: int, max_tokens: int, max_rows: int) -> list[list[int]]:
    """Divides rows into passes for several processes: as few rounds as fit, with as equal work as greedy dealing finds.

    Rows are dealt, the longest first, to the pass that has the fewest tokens (Graham's rule, 1969: at most 4/3 of the
    best possible); where a pass gets too large, there is one more round.

    Args:
        lengths: tokens of each row, all positive.
        ranks: processes; pass number n is for process n modulo `ranks`.
        max_tokens: most tokens of a pass; a row that is longer has a pass of its own.
        max_rows: most rows of a pass.

    Returns:
        For each pass the rows' indices, in rising order; every row is in exactly one. Passes without a row are left
        out, which happens only where there are fewer rows than processes.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    rounds = 1
    while True:
        passes: list[list[int]] = [[] for _ in range(min(rounds * ranks, len(lengths)))]
        work = [0] * len(passes)
        for row in order:
            fewest = min(range(len(passes)), key=lambda number: (work[number], number))
            passes[fewest].append(row)
            work[fewest] += lengths[row]
        if all(
            len(rows) == 1 or (tokens <= max_tokens and len(rows) <= max_rows)
            for rows, tokens in zip(passes, work, strict=True)
        ):
            return [sorted(rows) for rows in passes]
        rounds += 1
