"""Packing the rows of one optimizer step into micro-batches.

Rows are packed within a step, never across steps. A step has the same rows with the same weights in the loss as without
packing, so packing changes the speed and not the training. A micro-batch holds rows one after another without padding.
They do not attend to each other (train/isolation.py checks the model).
"""

from collections.abc import Sequence


def pack_rows(lengths: Sequence[int], *, max_tokens: int, max_rows: int) -> list[list[int]]:
    """Packs rows into few micro-batches of at most `max_tokens` tokens and `max_rows` rows, by first-fit decreasing.

    Args:
        lengths: tokens of each row, all positive.
        max_tokens: most tokens of a micro-batch; a longer row has one of its own.
        max_rows: most rows of a micro-batch.

    Returns:
        For each micro-batch the rows' indices, in rising order. Every row is in exactly one. Equal arguments give equal
        results.
    """
    micro_batches: list[list[int]] = []
    space: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[index]
        for number, free in enumerate(space):
            if length <= free and len(micro_batches[number]) < max_rows:
                micro_batches[number].append(index)
                space[number] -= length
                break
        else:
            micro_batches.append([index])
            space.append(max_tokens - length)
    return [sorted(rows) for rows in sorted(micro_batches, key=min)]


def pack_rows_for_ranks(lengths: Sequence[int], *, ranks: int, max_tokens: int, max_rows: int) -> list[list[int]]:
    """Packs rows for several processes: into few rounds of micro-batches, with about equal work for each process.

    Each row, the longest first, goes to the micro-batch with the fewest tokens (Graham, 1969: the largest micro-batch
    is at most 4/3 of the optimum). If a micro-batch is too large, the rows are packed again with one more round.

    Args:
        lengths: tokens of each row, all positive.
        ranks: number of processes; micro-batch n is for process n modulo `ranks`.
        max_tokens: most tokens of a micro-batch; a longer row has one of its own.
        max_rows: most rows of a micro-batch.

    Returns:
        For each micro-batch the rows' indices, in rising order. Every row is in exactly one. Micro-batches without a
        row are left out.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    rounds = 1
    while True:
        micro_batches: list[list[int]] = [[] for _ in range(min(rounds * ranks, len(lengths)))]
        work = [0] * len(micro_batches)
        for row in order:
            fewest = min(range(len(micro_batches)), key=lambda number: (work[number], number))
            micro_batches[fewest].append(row)
            work[fewest] += lengths[row]
        if all(
            len(rows) == 1 or (tokens <= max_tokens and len(rows) <= max_rows)
            for rows, tokens in zip(micro_batches, work, strict=True)
        ):
            return [sorted(rows) for rows in micro_batches]
        rounds += 1
