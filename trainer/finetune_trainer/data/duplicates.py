"""Counts duplicate rows in one pass and with bounded memory.

A duplicate row is trained twice, which is rarely intended. Rows are compared by a 64-bit hash of what is trained. Among
ten million rows, two different ones have the same hash with a probability of 3 in a million.
"""

from array import array
from collections.abc import Iterable

REMEMBERED_ROWS = 10_000_000
"""Largest number of different rows that are remembered, in 102 MiB. Duplicates of later rows are not counted."""
_FIRST_SLOTS = 1 << 12
_GROWTH = 4
_LAST_STEP = 1 << 20
"""Number of slots up to which the table grows in steps. The next step is to the full size, because while it grows the
old table and the new one are both in memory."""


class DuplicateCounter:
    """Counts repeated keys with a hash table of 64-bit numbers. It takes 8 bytes a slot; a Python set takes 70.

    Args:
        remembered: largest number of different keys that are remembered.

    Attributes:
        count: number of keys that repeat an earlier key.
        complete: whether every key was remembered. Then `count` is exact; otherwise it is a lower bound.
    """

    def __init__(self, remembered: int = REMEMBERED_ROWS) -> None:
        self._remembered = remembered
        self._table = _empty(_FIRST_SLOTS)
        self._room = _FIRST_SLOTS // 2
        # The full table is at most three quarters full: in a fuller one a search takes long.
        self._most_slots = max(_FIRST_SLOTS, remembered * 4 // 3 + 2)
        self._kept = 0
        self._zero = False
        self.count = 0
        self.complete = True

    def add(self, keys: Iterable[int]) -> None:
        """Adds the keys of rows: results of `hash`, signed, 64 bits."""
        # The loop runs once a row, so it has no calls. The table has open addressing with linear probing, and 0 is a
        # free slot. Slots have negative indices, counted from the end. So the slot after the last has index 0, which is
        # the first.
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
