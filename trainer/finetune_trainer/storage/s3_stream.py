"""An object's bytes as a stream that survives a torn connection.

The SDK retries the request, never the body: a reset after the first gigabyte would end the read. Here it goes on with
`Range` from the byte that is missing and with `If-Match`, so that the rest belongs to the same object.
"""

import io
from collections.abc import Callable
from typing import Protocol

from botocore.exceptions import IncompleteReadError

from finetune_trainer.storage.retry import RetryPolicy
from finetune_trainer.storage.s3_errors import FAILURES_OF_S3

BUFFER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16
"""What one read asks of the connection: all that is lost when it is reset."""


class Body(Protocol):
    """The part of botocore's StreamingBody that is used."""

    def read(self, amt: int | None = None) -> bytes:
        """At most `amt` bytes; none at the end."""
        ...

    def close(self) -> None:
        """Gives the connection back."""
        ...


class ResumingStream(io.RawIOBase):
    """Reads a part of an object through `open_at(offset)`, from its first byte or from where `seek` went.

    Args:
        open_at: opens the body from a byte on.
        stop: the byte after the last one.
        failed: makes the exception of what the client raised.
        retry: with a server that gives no further byte.
        start: the first byte.
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
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte in the part."""
        return self._position - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Goes to a place of the part; the next read asks for it with a request of its own."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._position, io.SEEK_END: self._stop}[whence]
        position = min(max(base + offset, self._start), self._stop)
        if position != self._position:
            self._drop()
            self._position = position
        return self.tell()

    def readinto(self, buffer: "io.WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        """The next bytes; 0 at the end of the part and only there."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), _PIECE_BYTES, self._stop - self._position)
        if not wanted:
            return 0
        chunk = self._retry.call(lambda: self._next(wanted))
        self._position += len(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Closes the connection as well."""
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
