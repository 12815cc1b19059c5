"""The connections of an S3 client, made stricter than the SDK's: an answer has its whole length, and comes at a pace.

The SDK asks urllib3 to pass over an answer that ends early (botocore:httpsession.py, enforce_content_length=False). It
looks at the length of an object's bytes itself, but takes half of a listing for XML that it cannot parse, and does not
ask again.
"""

import http.client
import io
import socket
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from finetune_trainer.storage.pace import Pace

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def make_strict(client: "S3Client", pace: Pace) -> None:
    """Makes the connections of a client that has not connected yet strict.

    Neither botocore nor boto3 takes classes of connections; a session looks them up in this table whenever it makes a
    pool, for a server and for a proxy.
    """
    session = client._endpoint.http_session  # type: ignore[attr-defined]  # noqa: SLF001
    session._pool_classes_by_scheme.update(_pools(pace))  # noqa: SLF001


def _pools(pace: Pace) -> dict[str, type]:
    class Response(http.client.HTTPResponse):
        """An answer that is read at a pace."""

        def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp = io.BufferedReader(_PacedFile(self.fp.detach(), pace))

    class Plain(AWSHTTPConnection):
        response_class = Response  # type: ignore[assignment]  # botocore's is for refusals only

    class Secure(AWSHTTPSConnection):
        response_class = Response  # type: ignore[assignment]  # botocore's is for refusals only

    class PlainPool(_Strict, AWSHTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(_Strict, AWSHTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Strict:
    """A pool whose answers must have the length that they announce."""

    def urlopen(self, *arguments: Any, **options: Any) -> Any:
        """Sends a request (urllib3's name)."""
        options["enforce_content_length"] = True
        return super().urlopen(*arguments, **options)  # type: ignore[misc]


class _PacedFile(io.RawIOBase):
    """The receiving side of a socket."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        super().__init__()
        self._raw = raw
        self._watch = pace.watch()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "io.WriteableBuffer", /) -> int:  # type: ignore[name-defined]
        return self._watch.wait(lambda: self._raw.readinto(buffer) or 0)

    def close(self) -> None:
        self._raw.close()
        super().close()
