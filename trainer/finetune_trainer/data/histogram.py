"""A histogram of row lengths in tokens, with percentiles and buckets for the report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

FIRST_BUCKET = 32
"""Largest length in the first bucket, in tokens. Each further bucket ends at twice the length of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthBin:
    """Rows of similar length.

    Attributes:
        low, high: tokens of the shortest and the longest row that belongs here.
        rows: how many there are.
    """

    low: int
    high: int
    rows: int


class LengthHistogram:
    """Exact numbers of rows by length. Memory grows with the number of different lengths, not of rows."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return self._rows.total()

    @property
    def longest(self) -> int:
        """Tokens of the longest row; 0 without rows."""
        return max(self._rows, default=0)

    def add(self, length: int, rows: int = 1) -> None:
        """Adds rows of `length` tokens."""
        self._rows[length] += rows

    def percentile(self, percent: int) -> int:
        """The shortest length that `percent` % of the rows do not exceed (nearest rank); 0 without rows."""
        wanted = -(-self.rows * percent // 100)
        seen = 0
        for length in sorted(self._rows):
            seen += self._rows[length]
            if seen >= wanted:
                return length
        return 0

    def buckets(self, edge: int) -> Sequence[tuple[int, int]]:
        """The buckets as pairs: largest length, and number of rows.

        They begin with the bucket of the shortest row and end with that of the longest; some between may be empty.

        Args:
            edge: a length at which a bucket must end, so that the numbers of longer rows are separate.
        """
        ends = [FIRST_BUCKET]
        while ends[-1] < self.longest:
            ends.append(ends[-1] * 2)
        ends = sorted({*ends, edge}) if edge < ends[-1] else ends
        counts = [0] * len(ends)
        bucket = 0
        for length in sorted(self._rows):
            while length > ends[bucket]:
                bucket += 1
            counts[bucket] += self._rows[length]
        first = next((index for index, rows in enumerate(counts) if rows), 0)
        return list(zip(ends, counts, strict=True))[first:] if self._rows else []
