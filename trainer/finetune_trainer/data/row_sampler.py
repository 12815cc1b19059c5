"""Which rows of a large dataset are tokenised: an even sample that depends on nothing but the rows' numbers and sizes.

A tokenizer takes a few megabytes a second, the pass over the data a hundred times that. So rows are all taken until
their text has `LEVEL_CHARACTERS`; then one row of four until as much again is taken, then one of sixteen, and so on. A
row stands for as many as its level has passed over, so sums of these weights estimate the whole without a bias.
"""

LEVEL_CHARACTERS = 16 << 20
_LEVEL_BITS = 2
# Multiples of 2^64 / golden ratio spread evenly over 64 bits (Knuth, The Art of Computer Programming 3, 6.4): their top
# bits pick rows at about even distances, yet not in step with data in which every fourth row is of another kind.
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class RowSampler:
    """Decides row by row.

    Args:
        level_characters: characters that are taken of each level.
    """

    def __init__(self, level_characters: int = LEVEL_CHARACTERS) -> None:
        self._level_characters = level_characters
        self._left = level_characters
        self._bits = 0
        self._number = 0

    def next_weight(self) -> int:
        """How many rows the next one stands for; 0 when it is not taken."""
        self._number += 1
        if self._bits and (self._number * _GOLDEN & _MASK) >> (64 - self._bits):
            return 0
        return 1 << self._bits

    def add(self, characters: int) -> None:
        """Notes the size of a row that was taken."""
        self._left -= characters
        if self._left <= 0:
            self._bits += _LEVEL_BITS
            self._left = self._level_characters
