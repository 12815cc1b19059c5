"""How much hashing a pickle needs, computed before it is read.

A pickle can put one tuple into another twice, level upon level: in 127 bytes a tuple of 2^60 leaves. It takes no
memory, as the levels are shared. But Python hashes a tuple by hashing all that is in it, each time anew, in one step
that nothing can interrupt: as the key of a dict it would be hashed for years. So the opcodes are followed on a stack
of sizes, which is all that hashing depends on.
"""

import pickletools
from collections.abc import Iterator

MOST_HASHED = 10_000_000
"""Values that are hashed in all, besides what is in proportion to the file; a second or so."""
_HASHED_PER_BYTE = 20
_OF_PARTS = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"})
"""What hashes by its parts. Lists and dicts have no hash, and what a pickle has constructed here has that of its
identity."""
_HASHING = frozenset({"DICT", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET"})
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MARK = -1


class HashCost:
    """Follows a pickle's opcodes.

    Args:
        size: bytes of the pickle.
    """

    def __init__(self, size: int) -> None:
        self._left = MOST_HASHED + _HASHED_PER_BYTE * size
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Takes one opcode more.

        Raises:
            ValueError: the pickle asks for too much hashing.
            IndexError: it takes more from the stack than there is.
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
                # Values are counted with the keys: some tuples more, and no order to be kept.
                self._left -= sum(parts)
                if self._left < 0:
                    raise ValueError("its keys hold one another without end")
            of_parts = name in _OF_PARTS
            stack.extend(1 + sum(parts) if of_parts else 1 for _ in opcode.stack_after)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> Iterator[int]:
        """The sizes of what the opcode takes from the stack, without marks."""
        below = opcode.stack_before
        if pickletools.markobject in below:
            while (size := self._stack.pop()) != _MARK:
                yield size
            below = below[: below.index(pickletools.markobject)]
        for _ in below:
            size = self._stack.pop()
            if size != _MARK:
                yield size
