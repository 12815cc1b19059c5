"""Lines of a byte stream, with bounded memory and the places that messages need.

Only LF ends a line: text mode would also split at a bare CR, `str.splitlines` at U+2028 and others, in the middle of
a JSON string.
"""

from collections.abc import Iterable, Iterator

from finetune_trainer.data.problems import Fault, ProblemKind

Line = tuple[int, int, bytes | None]
"""Number from 1, offset of its first byte, and its bytes without LF; None when it is longer than allowed."""


class LineSplitter:
    """Splits pieces of bytes into lines.

    Args:
        pieces: the bytes; piece borders mean nothing.
        longest: most bytes of a line; a longer one is skipped and comes as None.

    Attributes:
        terminated: whether the line that came last ended with LF.
        number: the number of the line that came last.
    """

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._pieces = pieces
        self._longest = longest
        self.terminated = True
        self.number = 0

    def __iter__(self) -> Iterator[Line]:
        longest = self._longest
        number = offset = 0
        held: list[bytes] = []  # the begun line; joined once, so that a long one does not cost its square
        held_bytes = 0
        for piece in self._pieces:
            head, *rest = piece.split(b"\n")
            held_bytes += len(head)
            if held_bytes <= longest:
                held.append(head)
            else:
                held = []  # skipping: only the length is still of interest
            if not rest:
                continue
            number += 1
            self.number = number
            yield number, offset, b"".join(held) if held_bytes <= longest else None
            offset += held_bytes + 1
            tail = rest.pop()
            for content in rest:
                number += 1
                self.number = number
                yield number, offset, content if len(content) <= longest else None
                offset += len(content) + 1
            held_bytes = len(tail)
            held = [tail] if held_bytes <= longest else []
        if held_bytes:
            self.terminated = False
            self.number = number + 1
            yield number + 1, offset, b"".join(held) if held_bytes <= longest else None


def line_too_long(longest: int) -> Fault:
    """The fault of a line that came as None."""
    return Fault(
        kind=ProblemKind.TOO_LONG,
        found=f"a line of more than {longest:,} bytes",
        expected="a shorter one",
        remedy="split the row, or raise dataset.limits.maxLineBytes",
    )
