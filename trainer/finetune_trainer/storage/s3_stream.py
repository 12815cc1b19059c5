"""An object's bytes as a stream that survives a torn connection.

The SDK retries the request, never the body: a reset after the first gigabyte would end the read. Here it goes on with
`Range` from the byte that is missing and with `If-Match`, so that the rest belongs to the same object.
"""

import io
import random
import time
from collections.abc import Callable
from typing import Protocol

from botocore.exceptions import IncompleteReadError

from finetune_trainer.storage.s3_errors import FAILURES_OF_S3, http_status

BUFFER_BYTES = 1 << 20
_TRIES_WITHOUT_A_BYTE = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
Sleep = Callable[[float], None]


class Body(Protocol):
    """The part of botocore's StreamingBody that is used."""

    def read(self, amt: int | None = None) -> bytes:
        """At most `amt` bytes; none at the end."""
        ...

    def close(self) -> None:
        """Gives the connection back."""
        ...


class ResumingStream(io.RawIOBase):
    """Reads an object of known size through `open_at(offset)`, from its beginning or from where `seek` went.

    Args:
        open_at: opens the body from a byte on; raises what the client raises.
        size: the object's bytes.
        failed: makes the exception that the reader gets when tries are used up.
        sleep: waits; an argument so that a test need not.
    """

    def __init__(
        self,
        open_at: Callable[[int], Body],
        size: int,
        failed: Callable[[BaseException], Exception],
        sleep: Sleep = time.sleep,
    ) -> None:
        super().__init__()
        self._open_at = open_at
        self._size = size
        self._failed = failed
        self._sleep = sleep
        self._position = 0
        self._body: Body | None = None
        self._fruitless = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Goes to a place of the object; the next read asks for it with a request of its own."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        position = min(max(start + offset, 0), self._size)
        if position != self._position:
            self._drop()
            self._position = position
        return position

    def readinto(self, buffer: "io.WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        """The next bytes; 0 at the end of the object and only there."""
        view = memoryview(buffer).cast("B")
        while self._position < self._size and len(view):
            try:
                if self._body is None:
                    self._body = self._open_at(self._position)
                chunk = self._body.read(min(len(view), self._size - self._position))
                if not chunk:
                    raise IncompleteReadError(actual_bytes=self._position, expected_bytes=self._size)
            except FAILURES_OF_S3 as error:
                self._drop()
                if http_status(error) in (400, 401, 403, 404, 412, 416):
                    raise self._failed(error) from error  # an answer, which waiting does not change
                self._fruitless += 1
                if self._fruitless >= _TRIES_WITHOUT_A_BYTE:
                    raise self._failed(error) from error
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._fruitless)
                self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load, guards nothing)
                continue
            self._fruitless = 0
            self._position += len(chunk)
            view[: len(chunk)] = chunk
            return len(chunk)
        return 0

    def close(self) -> None:
        """Closes the connection as well."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
