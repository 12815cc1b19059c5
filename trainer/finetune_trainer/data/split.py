"""The split of the rows into training and validation rows.

It depends on the content of a row, and neither on its place in the files nor on packing. Equal rows are in the same
part, so no row is both trained and evaluated.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
"""A number for each row, shape (rows,): equal for equal rows, otherwise evenly distributed."""


def row_key(ids: Sequence[int], seed: int) -> int:
    """A 64-bit hash (BLAKE2b) of a row's token ids, with the seed as salt.

    Args:
        ids: the token ids that the model sees: after the row is cut to the longest length.
        seed: another seed gives another split.
    """
    content = np.asarray(ids, dtype="<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, salt=seed.to_bytes(8, "little")).digest())


def held_out(keys: Keys, fraction: float) -> NDArray[np.bool_]:
    """Whether each row is held out, shape (rows,): the rows with the lowest keys are.

    Rows with equal keys stay together, so fewer rows than the fraction may be held out. At least the rows with the
    lowest key are.

    Args:
        keys: the rows' keys.
        fraction: largest share of the rows, from 0 to 1.
    """
    different, rows = np.unique(keys, return_counts=True)
    taken = int(np.searchsorted(np.cumsum(rows), int(fraction * len(keys)), side="right"))
    held: NDArray[np.bool_] = keys <= different[max(1, taken) - 1]
    return held


def also_in(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """Whether each row has a key that is also in `others`, shape (rows,)."""
    return np.isin(keys, others)
