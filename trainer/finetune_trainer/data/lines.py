"""Lines of a byte stream, with bounded memory, line numbers and byte offsets.

Only LF ends a line: text mode would also split at a bare CR, `str.splitlines` at U+2028 and others, in the middle of
a JSON string.
"""

from collections.abc import Iterable, Iterator, Sequence

from finetune_trainer.data.problems import Fault, ProblemKind

Line = tuple[int, int, bytes | None]
"""Number from 1, offset of its first byte, and its bytes without LF; None when it is longer than allowed."""
Block = tuple[int, int, Sequence[bytes] | None]
"""Lines that follow each other: the first one's number and offset, and the bytes of each without LF; or None for one
line that is longer than allowed."""


class LineSplitter:
    """Splits pieces of bytes into lines.

    Args:
        pieces: the bytes; piece borders mean nothing.
        longest: most bytes of a line; a longer one is skipped and comes as None.

    Attributes:
        terminated: whether the line that came last ended with LF.
        number: the number of the line that came last; of the block's last line, in the iteration over `blocks`.
        offset: where the line begins that has not come yet; known between pieces.
    """

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._pieces = pieces
        self._longest = longest
        self.terminated = True
        self.number = self.offset = 0

    def __iter__(self) -> Iterator[Line]:
        """Line by line."""
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
        """As many lines at a time as are there: for who goes through millions."""
        longest = self._longest
        number, offset = 1, 0  # of the next line
        held: list[bytes] = []  # the begun line; joined once, so that a long one does not cost its square
        held_bytes = 0
        for piece in self._pieces:
            lines = piece.split(b"\n")
            held_bytes += len(lines[0])
            if held_bytes <= longest:
                held.append(lines[0])
            else:
                held = []  # skipping: only the length is still of interest
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
    """The fault of a line that came as None."""
    return Fault(
        kind=ProblemKind.TOO_LONG,
        found=f"a line of more than {longest:,} bytes",
        expected="a shorter one",
        remedy="split the row, or raise dataset.limits.maxLineBytes",
    )
