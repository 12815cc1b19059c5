"""Chooses the rows of a large dataset that are tokenised: an even sample, a function of the rows' numbers and sizes.

A tokenizer reads a few megabytes a second, the pass over the data a hundred times as much. So all rows are taken until
their text has `LEVEL_CHARACTERS`. Then one row in four is taken until their text has as many characters again, then one
in sixteen, and so on. A row's weight is the number of rows that it stands for: 1, 4, 16, …. Sums of weights estimate
the whole dataset without bias.
"""

LEVEL_CHARACTERS = 16 << 20
_LEVEL_BITS = 2
# Multiples of 2^64 / golden ratio spread evenly over 64 bits (Knuth, The Art of Computer Programming 3, 6.4): their top
# bits pick rows at about even distances, yet not in step with data in which every fourth row is of another kind.
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class RowSampler:
    """Decides for each row whether it is in the sample.

    Args:
        level_characters: characters that are taken at each sampling rate.
    """

    def __init__(self, level_characters: int = LEVEL_CHARACTERS) -> None:
        self._level_characters = level_characters
        self._left = level_characters
        self._bits = 0
        self._number = 0

    def next_weight(self) -> int:
        """The weight of the next row: the number of rows that it stands for, 0 when it is not taken."""
        self._number += 1
        if self._bits and (self._number * _GOLDEN & _MASK) >> (64 - self._bits):
            return 0
        return 1 << self._bits

    def add(self, characters: int) -> None:
        """Adds the size of a row that was taken, in characters."""
        self._left -= characters
        if self._left <= 0:
            self._bits += _LEVEL_BITS
            self._left = self._level_characters
