"""Computes the work of hashing that a pickle needs, before it is read.

A pickle can put a tuple twice into another tuple, on many levels: 127 bytes give a tuple of 2^60 leaves. It takes
little memory, because the levels are shared. But Python computes the hash of a tuple from the hashes of all its parts,
without a cache, and nothing can interrupt it. As the key of a dict such a tuple would be hashed for years. So the
opcodes are executed on a stack of sizes, because the work of hashing depends only on sizes.
"""

import pickletools
from collections.abc import Iterator

MOST_HASHED = 10_000_000
"""Largest number of hashed values, besides `_HASHED_PER_BYTE` for each byte of the file; about a second."""
_HASHED_PER_BYTE = 20
_OF_PARTS = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
"""Opcodes that make values whose hash is computed from their parts. Lists and dicts have no hash, and the hash of a
`Made` record is that of its identity."""
_HASHING = frozenset({"DICT", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET"})
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MARK = -1


class HashCost:
    """Counts the values that a pickle's opcodes hash.

    Args:
        size: bytes of the pickle.
    """

    def __init__(self, size: int) -> None:
        self._left = MOST_HASHED + _HASHED_PER_BYTE * size
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Executes the next opcode on the stack of sizes.

        Raises:
            ValueError: the pickle hashes too many values.
            IndexError: the stack has too few values for the opcode.
            KeyError: the opcode reads a memo entry that does not exist.
        """
        name, stack, memo = opcode.name, self._stack, self._memo
        if name in _PUT and isinstance(argument, int):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GET and isinstance(argument, int):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        else:
            parts = list(self._taken(opcode))
            if name in _HASHING:
                # The values of a dict are counted as well as its keys, so that the order on the stack does not matter.
                self._left -= sum(parts)
                if self._left < 0:
                    raise ValueError("its keys hold one another without end")
            of_parts = name in _OF_PARTS
            stack.extend(1 + sum(parts) if of_parts else 1 for _ in opcode.stack_after)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> Iterator[int]:
        """The sizes of the values that the opcode pops from the stack, without marks."""
        below = opcode.stack_before
        if pickletools.markobject in below:
            while (size := self._stack.pop()) != _MARK:
                yield size
            below = below[: below.index(pickletools.markobject)]
        for _ in below:
            size = self._stack.pop()
            if size != _MARK:
                yield size
