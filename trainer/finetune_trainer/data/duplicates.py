"""Counts duplicate rows in one pass and with bounded memory.

A duplicate row is trained twice, which is rarely intended. Rows are compared by a 64-bit hash of what is trained. Among
ten million rows, two different ones have the same hash with a probability of 3 in a million.
"""

from array import array
from collections.abc import Iterable

REMEMBERED_ROWS = 10_000_000
"""Different rows that are remembered; duplicates of later rows are not counted. Takes 102 MiB."""
_FIRST_SLOTS = 1 << 12
_GROWTH = 4
_LAST_STEP = 1 << 20
"""A table of more slots is made of full size at once: growing takes the old one and the new one at a time."""


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
        self._room = _FIRST_SLOTS // 2
        # Three quarters full at last: fuller ones take long to look through.
        self._most_slots = max(_FIRST_SLOTS, remembered * 4 // 3 + 2)
        self._kept = 0
        self._zero = False
        self.count = 0
        self.complete = True

    def add(self, keys: Iterable[int]) -> None:
        """Takes the keys of rows, as `hash` makes them: 64 bits, signed."""
        # Once a row: open addressing with linear probing, 0 stands for a free slot. Slots are counted from the end, so
        # that the one after the last, 0, is the first.
        table, slots = self._table, len(self._table)
        for key in keys:
            slot = key % slots - slots
            while stored := table[slot]:
                if stored == key:
                    self.count += 1
                    break
                slot += 1
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
                        table, slots = self._table, len(self._table)

    def _add_zero(self) -> None:
        self.count += self._zero
        self._zero = True

    def _grow(self) -> None:
        old, slots = self._table, len(self._table) * _GROWTH
        if slots > min(_LAST_STEP, self._most_slots):
            slots = self._most_slots
        table = _empty(slots)
        for key in old:
            if key:
                slot = key % slots - slots
                while table[slot]:
                    slot += 1
                table[slot] = key
        self._table = table
        self._room = self._remembered if slots == self._most_slots else slots // 4 * 3


def _empty(slots: int) -> "array[int]":
    return array("q", bytes(8)) * slots
