"""A TCP proxy that damages connections: the faults of real networks, in front of a real server."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards to a server; cuts an answer after a number of bytes, for a number of connections."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        parts = urlsplit(target)
        self.target = (parts.hostname or "", parts.port or 80)
        self.cut_after = 0
        self.cuts_left = 0
        self.cuts = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def cut(self, times: int, after: int) -> None:
        """From now on: `times` answers that are longer than `after` bytes end there, with a reset."""
        self.cuts_left, self.cut_after, self.cuts = times, after, 0


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
                upstream.sendall(piece)
            upstream.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _answers(self, upstream: socket.socket) -> None:
        passed = 0
        try:
            while piece := upstream.recv(65536):
                passed += len(piece)
                if self.server.cuts_left and passed > self.server.cut_after:
                    self.server.cuts_left -= 1
                    self.server.cuts += 1
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
