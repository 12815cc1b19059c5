"""Splits a byte stream into lines, with bounded memory, line numbers and byte offsets.

Only LF ends a line. Python's text mode also splits at a bare CR. `str.splitlines` also splits at U+2028 and other
characters, which may be inside a JSON string.
"""

from collections.abc import Iterable, Iterator, Sequence

from finetune_trainer.data.problems import Fault, ProblemKind

Line = tuple[int, int, bytes | None]
"""Number of the line from 1, offset of its first byte, and its bytes without LF; None if it is longer than allowed."""
Block = tuple[int, int, Sequence[bytes] | None]
"""Consecutive lines: number and offset of the first one, and the bytes of each without LF. For one line that is longer
than allowed, None instead of the bytes."""


class LineSplitter:
    """Splits pieces of bytes into lines.

    Args:
        pieces: the bytes, split at any place.
        longest: most bytes of a line. A longer line is skipped and yielded as None.

    Attributes:
        terminated: whether the last line ended with LF.
        number: number of the last line; in the iteration over `blocks` that of the block's last line.
        offset: byte offset of the next line. It is updated after every piece.
    """

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._pieces = pieces
        self._longest = longest
        self.terminated = True
        self.number = self.offset = 0

    def __iter__(self) -> Iterator[Line]:
        """The lines."""
        for first, start, lines in self.blocks():
            if lines is None:
                yield first, start, None
                continue
            offset = start
            for number, line in enumerate(lines, first):
                self.number = number
                yield number, offset, line
                offset += len(line) + 1

    def blocks(self) -> Iterator[Block]:
        """The lines in blocks of consecutive lines, which is faster for millions of lines."""
        longest = self._longest
        number, offset = 1, 0  # of the next line
        # The pieces of an incomplete line. They are joined once, because repeated joins take quadratic time.
        held: list[bytes] = []
        held_bytes = 0
        for piece in self._pieces:
            lines = piece.split(b"\n")
            held_bytes += len(lines[0])
            if held_bytes <= longest:
                held.append(lines[0])
            else:
                held = []  # the line is skipped, and only its length is counted
            if len(lines) == 1:
                continue
            tail = lines.pop()
            if held_bytes > longest:
                self.number = number
                yield number, offset, None
                number += 1
                offset += held_bytes + 1
                del lines[0]
            else:
                lines[0] = b"".join(held)
            fitting = max(map(len, lines), default=0) <= longest
            for block in ([lines] if lines else []) if fitting else [[line] for line in lines]:
                self.number = number + len(block) - 1
                yield number, offset, block if len(block[0]) <= longest else None
                number += len(block)
                offset += sum(map(len, block)) + len(block)
            self.offset = offset
            held_bytes = len(tail)
            held = [tail] if held_bytes <= longest else []
        if held_bytes:
            self.terminated = False
            self.number = number
            yield number, offset, [b"".join(held)] if held_bytes <= longest else None


def line_too_long(longest: int) -> Fault:
    """The fault of a line that is longer than allowed.

    Args:
        longest: most bytes of a line.
    """
    return Fault(
        kind=ProblemKind.TOO_LONG,
        found=f"a line of more than {longest:,} bytes",
        expected="a shorter one",
        remedy="split the row, or raise dataset.limits.maxLineBytes",
    )
