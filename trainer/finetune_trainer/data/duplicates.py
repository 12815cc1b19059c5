"""Counting rows that were there before, in one pass and with bounded memory.

A row twice in the data is trained twice, which is rarely meant. Rows are told apart by 64 bits of what is trained in
them: of ten million rows, two different ones share their bits with a chance of 3 in a million.
"""

from array import array
from collections.abc import Iterable

REMEMBERED_ROWS = 10_000_000
"""Different rows that are remembered; what only comes after them is not seen to repeat. Takes 128 MiB."""
_FIRST_SLOTS = 1 << 12
_GROWTH = 4


class DuplicateCounter:
    """Counts repeated keys: a hash table of bare 64-bit numbers, 8 bytes a slot where a Python set takes 70.

    Args:
        remembered: most different keys that are remembered.

    Attributes:
        count: keys that had come before.
        complete: whether every key was remembered, so that `count` is exact and not only a least number.
    """

    def __init__(self, remembered: int = REMEMBERED_ROWS) -> None:
        self._remembered = remembered
        self._table = _empty(_FIRST_SLOTS)
        self._mask = _FIRST_SLOTS - 1
        self._room = _FIRST_SLOTS // 2
        self._kept = 0
        self._zero = False
        self.count = 0
        self.complete = True

    def add(self, keys: Iterable[int]) -> None:
        """Takes the keys of rows, as `hash` makes them: 64 bits, signed."""
        # Once a row: open addressing with linear probing, 0 stands for a free slot.
        table, mask = self._table, self._mask
        for key in keys:
            slot = key & mask
            while found := table[slot]:
                if found == key:
                    self.count += 1
                    break
                slot = (slot + 1) & mask
            else:
                if not key:
                    self._add_zero()
                elif self._kept == self._remembered:
                    self.complete = False
                else:
                    table[slot] = key
                    self._kept += 1
                    if self._kept > self._room:
                        self._grow()
                        table, mask = self._table, self._mask

    def _add_zero(self) -> None:
        self.count += self._zero
        self._zero = True

    def _grow(self) -> None:
        old, slots = self._table, len(self._table) * _GROWTH
        table, mask = _empty(slots), slots - 1
        for key in old:
            if key:
                slot = key & mask
                while table[slot]:
                    slot = (slot + 1) & mask
                table[slot] = key
        # Three quarters full at most: at 2^24 slots that is more than is remembered.
        self._table, self._mask, self._room = table, mask, slots // 4 * 3


def _empty(slots: int) -> "array[int]":
    return array("q", bytes(8)) * slots
