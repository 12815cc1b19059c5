"""A TLS door before a proxy, with faults of the TLS handshake. An operator goes through it by TLS, as it does in a pod.

A handshake happens once for each connection. So a fault that begins ends the open connections.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit


class TlsFault(StrEnum):
    """What becomes of a handshake."""

    OTHER_AUTHORITY = "certificate of another authority"
    OTHER_NAME = "certificate of another host"
    EXPIRED = "expired certificate"
    CUT = "handshake cut"
    PLAIN = "plain HTTP instead of TLS"


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_HERE, _ELSEWHERE = "IP:127.0.0.1", "DNS:elsewhere.example.com"


class Certificates:
    """An authority, and the certificates of a server: a good one and bad ones.

    Attributes:
        authority: the authority's own certificate, which a client trusts.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.authority = self._authority("authority")
        other = self._authority("other")
        self.good = self._signed("good", self.authority, _HERE)
        self.bad = {
            TlsFault.OTHER_AUTHORITY: self._signed("unknown", other, _HERE),
            TlsFault.OTHER_NAME: self._signed("misnamed", self.authority, _ELSEWHERE),
            TlsFault.EXPIRED: self._signed("expired", self.authority, _HERE, days=-1),
        }

    def _authority(self, name: str) -> Path:
        certificate = self._folder / f"{name}.crt"
        key = str(certificate.with_suffix(".key"))
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", key, "-out", str(certificate), "-subj", f"/CN={name}")
        return certificate

    def _signed(self, name: str, authority: Path, host: str, days: int = 1) -> ssl.SSLContext:
        certificate = self._folder / f"{name}.crt"
        key, request = certificate.with_suffix(".key"), certificate.with_suffix(".csr")
        extensions = certificate.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={host}\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        signer = ("-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")), "-CAcreateserial")
        dated = ("-days", str(days), "-extfile", str(extensions))
        _openssl("x509", "-req", "-in", str(request), *signer, *dated, "-out", str(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


class Door:
    """The door of one proxy.

    Attributes:
        url: its own address.
        authority: the certificate that a client trusts.
        struck: handshakes that met a fault.
    """

    def __init__(self, certificates: Certificates, behind: str) -> None:
        self.url = ""
        self.struck = 0
        self.authority = certificates.authority
        self._certificates = certificates
        self._behind = urlsplit(behind).port
        self._fault: TlsFault | None = None
        self._ports: dict[TlsFault | None, int] = {}  # of the TLS servers, each with a certificate
        self._tasks: set[asyncio.Task[None]] = set()

    def change(self, fault: TlsFault | None, *, cut: bool = True) -> None:
        """Lets a fault begin or, with None, end. `cut`: open connections end."""
        self._fault = fault
        for task in self._tasks if cut else ():
            task.cancel()

    def lead_to(self, port: int) -> None:
        """Lets new connections lead to another port of loopback."""
        self._behind = port

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves on a port of loopback."""
        async with AsyncExitStack() as stack:
            for fault, context in ((None, self._certificates.good), *self._certificates.bad.items()):
                within = await asyncio.start_server(self._inside, "127.0.0.1", 0, ssl=context)
                stack.callback(within.close)
                self._ports[fault] = within.sockets[0].getsockname()[1]
            server = await asyncio.start_server(self._outside, "127.0.0.1", 0)
            stack.callback(server.close)
            self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            stack.callback(self.change, None)
            yield

    async def _outside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes bytes on to the server with the right certificate, or does not."""
        fault = self._fault
        self.struck += fault is not None
        async with self._handling(writer):
            match fault:
                case TlsFault.CUT:
                    await reader.read(1)
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                case TlsFault.PLAIN:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
                case _:
                    await _join(reader, writer, self._ports[fault])

    async def _inside(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes decrypted bytes on to the proxy."""
        async with self._handling(writer):
            await _join(reader, writer, self._behind)

    @asynccontextmanager
    async def _handling(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """A connection that ends with the block, or when the fault changes."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                yield
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int | None) -> None:
    """Joins a connection with one to a port of loopback, until either ends."""
    inner, outer = await asyncio.open_connection("127.0.0.1", port)
    pumps = [asyncio.create_task(_pump(reader, outer)), asyncio.create_task(_pump(inner, writer))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        outer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(1 << 16):
            sink.write(chunk)
            await sink.drain()


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
