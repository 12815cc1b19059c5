"""How much a compressed file may grow, watched while it does: a bomb must not go off first."""

from finetune_trainer.data.problems import Fault, FaultError, ProblemKind

_FLOOR = 64 << 10
"""Stored bytes that are assumed at least, so that a tiny file of one repeated row is no bomb."""


def require_ratio(produced: int, stored: int, most: int) -> None:
    """Ends the reading of what has grown too much.

    Args:
        produced: bytes after decompression.
        stored: bytes before it.
        most: `dataset.limits.maxCompressionRatio`.

    Raises:
        FaultError: it has.
    """
    if produced > most * max(stored, _FLOOR):
        raise FaultError(
            Fault(
                kind=ProblemKind.LIMIT,
                found=f"{produced:,} bytes out of {stored:,} stored ones",
                expected=f"at most {most} for one",
                remedy="if that is right, raise dataset.limits.maxCompressionRatio or store it unpacked",
            )
        )
