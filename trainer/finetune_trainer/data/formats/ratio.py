"""The limit on the compression ratio.

It is checked during decompression, so that a decompression bomb is refused before it fills memory.
"""

from finetune_trainer.data.problems import Fault, FaultError, ProblemKind

_FLOOR = 64 << 10
"""Smallest number of stored bytes that the ratio is computed with: a tiny file of one repeated row is not a bomb."""


def require_ratio(produced: int, stored: int, most: int) -> None:
    """Requires that decompressed data are within the ratio.

    Args:
        produced: bytes after decompression.
        stored: bytes before decompression.
        most: `dataset.limits.maxCompressionRatio`.

    Raises:
        FaultError: the ratio is larger than `most`.
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
