"""Which rows are held out for validation.

By content, not by place: a row goes the same way wherever it stands in the files and however rows are packed, and equal
rows go together, so that no row is trained on and measured with.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
"""A number for each row, equal for equal rows, else evenly spread."""


def row_key(ids: Sequence[int], seed: int) -> int:
    """64 bits by the seed and the row's token ids: what the model sees of it, after the cut."""
    content = np.asarray(ids, dtype="<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=seed.to_bytes(8, "little")).digest())


def held_out(keys: Keys, fraction: float) -> NDArray[np.bool_]:
    """For each row whether it is held out: those with the lowest keys, as many as the fraction allows.

    Rows with one key go together, so there may be fewer; but at least one, and its equals.

    Args:
        keys: the rows' keys.
        fraction: share of the rows.
    """
    different, rows = np.unique(keys, return_counts=True)
    taken = int(np.searchsorted(np.cumsum(rows), int(fraction * len(keys)), side="right"))
    held: NDArray[np.bool_] = keys <= different[max(1, taken) - 1]
    return held


def also_in(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """For each row whether it is among the others too."""
    return np.isin(keys, others)
