"""Decompresses gzip data as a stream, in pieces of bounded size.

The standard library's GzipFile is not used for two reasons. It reports bytes after the end as a wrong header, and it
detects a decompression bomb (1 GiB of zeros gzips to 1 MB) too late. Here the compression ratio is checked after every
piece. zlib-ng has the interface and the messages of the standard library, at two to three times the speed.
"""

from collections.abc import Iterator

from zlib_ng import zlib_ng

from finetune_trainer.data.formats.ratio import require_ratio
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind

MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20


def gunzip(stored: Iterator[bytes], max_ratio: int) -> Iterator[bytes]:
    """The decompressed bytes, in pieces of at most 1 MiB. Several gzip members are one file.

    Args:
        stored: the stored bytes, from the first.
        max_ratio: largest number of decompressed bytes per stored byte.

    Raises:
        FaultError: the data are damaged, cut short, followed by other bytes, or over the ratio.
    """
    inflater = zlib_ng.decompressobj(wbits=31)
    consumed = produced = 0
    started = False
    for piece in stored:
        consumed += len(piece)
        rest = piece
        while True:
            if inflater.eof:
                rest = rest.lstrip(b"\0")  # padding to full blocks, which tapes and some tools write
                if not rest:
                    break
                if not MAGIC.startswith(rest[:2]):
                    raise _fault("bytes after the end of the gzip data", "nothing there", "compress the file again")
                inflater = zlib_ng.decompressobj(wbits=31)
            started = True
            try:
                out = inflater.decompress(rest, _PIECE)
            except zlib_ng.error as error:  # type: ignore[misc]  # its stub declares an instance
                raise _fault(f"damaged gzip data ({error})", "an intact file", "upload the file again") from None
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            produced += len(out)
            require_ratio(produced, consumed, max_ratio)
            if out:
                yield out
            if not rest and len(out) < _PIECE and not inflater.eof:
                break  # the decompressor needs more input
            if not rest and inflater.eof:
                break
    if started and not inflater.eof:
        raise _fault(
            f"the end of the file, after byte {consumed:,}, inside the gzip data",
            "whole data",
            "upload the file again: it was cut short",
        )


def _fault(found: str, expected: str, remedy: str) -> FaultError:
    return FaultError(Fault(kind=ProblemKind.FILE, found=found, expected=expected, remedy=remedy))
