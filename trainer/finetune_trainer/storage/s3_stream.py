"""A stream of an object's bytes that continues after a broken connection.

The SDK retries a request but never the reading of its body: a reset after the first gigabyte would end the read. This
stream sends a new request with `Range` from the first missing byte. `If-Match` ensures that the rest belongs to the
same object.
"""

import io
from collections.abc import Callable
from typing import Protocol

from botocore.exceptions import IncompleteReadError

from finetune_trainer.storage.retry import RetryPolicy
from finetune_trainer.storage.s3_errors import FAILURES_OF_S3

BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
"""Bytes of one read from the connection. A reset loses at most this many bytes."""


class Body(Protocol):
    """The part of botocore's StreamingBody that is used."""

    def read(self, amt: int | None = None) -> bytes:
        """Returns at most `amt` bytes, and no bytes at the end."""
        ...

    def close(self) -> None:
        """Returns the connection to the pool, or closes it."""
        ...


class ResumingStream(io.RawIOBase):
    """A read-only, seekable stream of one part of an object.

    Args:
        open_at: opens the body from a byte of the object on.
        stop: offset of the byte after the part's last byte.
        failed: converts an exception of the client into the exception to raise.
        retry: the retry policy when no further bytes come.
        start: offset of the part's first byte.
    """

    def __init__(
        self,
        open_at: Callable[[int], Body],
        stop: int,
        failed: Callable[[BaseException], Exception],
        retry: RetryPolicy,
        *,
        start: int = 0,
    ) -> None:
        super().__init__()
        self._open_at = open_at
        self._start, self._stop = start, stop
        self._failed = failed
        self._retry = retry
        self._position = start
        self._body: Body | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the offset of the next byte, counted from the start of the part."""
        return self._position - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Sets the offset in the part. After a change, the next read sends a new request."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._position, io.SEEK_END: self._stop}[whence]
        position = min(max(base + offset, self._start), self._stop)
        if position != self._position:
            self._drop()
            self._position = position
        return self.tell()

    def readinto(self, buffer: "io.WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        """Reads the next bytes into `buffer` and returns their number. Returns 0 only at the end of the part.

        Raises:
            Exception: the exception that `failed` made, when the retry policy allows no further try.
        """
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), _PIECE_BYTES, self._stop - self._position)
        if not wanted:
            return 0
        chunk = self._retry.call(lambda: self._next(wanted))
        self._position += len(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Closes the stream and the body of the current request."""
        self._drop()
        super().close()

    def _next(self, wanted: int) -> bytes:
        try:
            if self._body is None:
                self._body = self._open_at(self._position)
            chunk = self._body.read(wanted)
            if not chunk:
                raise IncompleteReadError(actual_bytes=self._position, expected_bytes=self._stop)
        except FAILURES_OF_S3 as error:
            self._drop()
            raise self._failed(error) from error
        return chunk

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
