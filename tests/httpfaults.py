"""An HTTP proxy before a real server that injects the faults of real networks and servers.

A plan chooses the fault of each request. `random_faults` makes a plan from a seed.
"""

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_PIECE = 1 << 18
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Fault(StrEnum):
    """The fault of one request."""

    ERROR = "500"
    SLOW_DOWN = "503"
    TOO_MANY = "429"
    TOO_MANY_FOR_NOW = "429 with Retry-After"
    REFUSED_CONNECTION = "reset before the request is read"
    TORN_REQUEST = "reset in the middle of the request"
    LOST_ANSWER = "carried out, then reset instead of an answer"
    CUT_ANSWER = "the answer ends half-way"
    RESET_ANSWER = "reset half-way through the answer"
    SLOW_ANSWER = "the answer comes in pieces, with pauses"
    DRIP = "the answer comes byte by byte and never ends"
    SILENCE = "no answer until the line is hung up"


BRIEF = (
    Fault.ERROR,
    Fault.SLOW_DOWN,
    Fault.REFUSED_CONNECTION,
    Fault.TORN_REQUEST,
    Fault.LOST_ANSWER,
    Fault.CUT_ANSWER,
    Fault.RESET_ANSWER,
    Fault.SLOW_ANSWER,
)
"""Faults after which the client need not wait for a time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as a plan sees it.

    Attributes:
        number: number of requests before it.
        method: GET, PUT and so on.
        path: path with the query.
        condition: value of If-None-Match or If-Match; empty without.
        first: offset of the first requested byte.
    """

    number: int
    method: str
    path: str
    condition: str
    first: int


Plan = Callable[[Request], Fault | None]


def first(*faults: Fault, method: str = "GET") -> Plan:
    """Returns a plan that gives these faults to the first requests of a method, and no fault to any other."""
    left, lock = list(faults), threading.Lock()

    def plan(request: Request) -> Fault | None:
        with lock:
            return left.pop(0) if left and request.method == method else None

    return plan


def random_faults(seed: int, rate: float, kinds: Sequence[Fault] = BRIEF, longest_burst: int = 1) -> Plan:
    """Returns a random plan.

    Args:
        seed: seed of the random numbers.
        rate: probability that a request begins a series of faults.
        kinds: the faults. All requests of a series have the same fault.
        longest_burst: largest number of requests in a series.
    """
    source, lock = random.Random(seed), threading.Lock()
    left, kind = 0, kinds[0]

    def plan(_: Request) -> Fault | None:
        nonlocal left, kind
        with lock:
            if not left and source.random() < rate:
                left, kind = source.randint(1, longest_burst), source.choice(kinds)
            if not left:
                return None
            left -= 1
            return kind

    return plan


@dataclass
class Faults:
    """The proxy of one server.

    Attributes:
        target: the server's URL.
        plan: the plan of faults, which may be changed at any time.
        endpoint: the proxy's URL.
        seen: the requests in their order, with their faults.
        ended: set when the proxy is closed.
        hung_up: when it is set, every request without an answer loses its connection, also later ones.
    """

    target: str
    plan: Plan = lambda _: None
    endpoint: str = ""
    seen: list[tuple[Request, Fault | None]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def counts(self) -> Counter[Fault]:
        """Returns how often each fault happened."""
        return Counter(fault for _, fault in list(self.seen) if fault is not None)

    def calm(self) -> None:
        """Ends all faults and forgets the earlier requests."""
        self.plan = lambda _: None
        self.seen.clear()

    def decide(self, method: str, path: str, headers: Mapping[str, str]) -> Fault | None:
        condition = headers.get("If-None-Match") or headers.get("If-Match") or ""
        first = int((headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        with self._lock:
            request = Request(number=len(self.seen), method=method, path=path, condition=condition, first=first)
            fault = self.plan(request)
            self.seen.append((request, fault))
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults

    def do_GET(self) -> None:
        fault = self.faults.decide(self.command, self.path, dict(self.headers))
        length = int(self.headers.get("Content-Length") or 0)
        if fault in (Fault.REFUSED_CONNECTION, Fault.TORN_REQUEST):
            self.rfile.read(length // 2 if fault is Fault.TORN_REQUEST else 0)
            self._reset()
            return
        body = self.rfile.read(length)
        match fault:
            case Fault.ERROR:
                self._refuse(500, "InternalError")
            case Fault.SLOW_DOWN:
                self._refuse(503, "SlowDown")
            case Fault.TOO_MANY:
                self._refuse(429, "TooManyRequests")
            case Fault.TOO_MANY_FOR_NOW:
                self._refuse(429, "TooManyRequests", **{"Retry-After": "1"})
            case Fault.SILENCE:
                self.close_connection = True
                self.faults.hung_up.wait()
            case _:
                self._forward(body, fault)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 (the base class's names)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        status, headers, content = self._asked(body)
        if fault is Fault.LOST_ANSWER:
            self._reset()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        match fault:
            case Fault.CUT_ANSWER | Fault.RESET_ANSWER:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.close_connection = True
                if fault is Fault.RESET_ANSWER:
                    self._reset()
            case Fault.SLOW_ANSWER:
                for start in range(0, len(content), _PIECE):
                    self.wfile.write(content[start : start + _PIECE])
                    self.wfile.flush()
                    self.faults.ended.wait(0.02)
            case Fault.DRIP:
                self.close_connection = True
                for place in range(len(content)):
                    self.wfile.write(content[place : place + 1])
                    self.wfile.flush()
                    if self.faults.ended.wait(0.2):
                        return
            case _:
                self.wfile.write(content)

    def _asked(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Sends the request to the server. Returns its answer."""
        place = urlsplit(self.faults.target)
        upstream = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        content = f"<Error><Code>{code}</Code><Message>please wait</Message></Error>".encode()
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:  # the client has closed the connection
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


@contextmanager
def running(target: str) -> Iterator[Faults]:
    """Runs a proxy on loopback."""
    faults = Faults(target)
    server = _Server(("127.0.0.1", 0), type("Bound", (_Handler,), {"faults": faults}))
    faults.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        faults.ended.set()
        faults.hung_up.set()
        server.shutdown()
        server.server_close()
        thread.join()
