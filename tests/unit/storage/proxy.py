"""A TCP proxy that damages connections: the faults of real networks, in front of a real server."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards to a server; refuses, slows down or cuts a number of answers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        parts = urlsplit(target)
        self.target = (parts.hostname or "", parts.port or 80)
        self.cut_after = 0
        self.cuts_left = 0
        self.cuts = 0
        self.refusals: list[int] = []
        self.slow_left = 0
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def cut(self, times: int, after: int) -> None:
        """From now on: `times` answers that are longer than `after` bytes end there, with a reset."""
        self.cuts_left, self.cut_after, self.cuts = times, after, 0

    def refuse(self, *statuses: int) -> None:
        """From now on: the next GETs are answered with these statuses, and the connection ends."""
        self.refusals = list(statuses)

    def slow(self, times: int) -> None:
        """From now on: the answers on `times` connections come in pieces of 256 KiB, with pauses."""
        self.slow_left = times

    def next_refusal(self) -> int | None:
        with self._lock:
            return self.refusals.pop(0) if self.refusals else None

    def take_cut(self) -> bool:
        with self._lock:
            if not self.cuts_left:
                return False
            self.cuts_left -= 1
            self.cuts += 1
            return True

    def take_slow(self) -> bool:
        with self._lock:
            self.slow_left -= 1
            return self.slow_left >= 0


_ERROR = b"<Error><Code>SlowDown</Code><Message>please wait</Message></Error>"
_REFUSAL = b"HTTP/1.1 %d Refused\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as upstream:
            back = threading.Thread(target=self._requests, args=(upstream,), daemon=True)
            back.start()
            self._answers(upstream)

    def _requests(self, upstream: socket.socket) -> None:
        try:
            while piece := self.request.recv(65536):
                if piece.startswith(b"GET ") and (status := self.server.next_refusal()):
                    self.request.sendall(_REFUSAL % (status, len(_ERROR), _ERROR))
                    self.request.shutdown(socket.SHUT_RDWR)
                    upstream.shutdown(socket.SHUT_RDWR)
                    return
                upstream.sendall(piece)
            upstream.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _answers(self, upstream: socket.socket) -> None:
        passed, slow = 0, False
        try:
            while piece := upstream.recv(262144 if slow else 65536):
                slow = slow or (not passed and self.server.take_slow())
                passed += len(piece)
                if slow:
                    time.sleep(0.02)
                if passed > self.server.cut_after and self.server.take_cut():
                    self.request.shutdown(socket.SHUT_RDWR)  # close() would wait for the other thread's recv()
                    return
                self.request.sendall(piece)
        except OSError:
            return


@contextmanager
def running(target: str) -> Iterator[Proxy]:
    """A proxy of its own."""
    proxy = Proxy(target)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
