"""A small agent that gives a pod its credentials over HTTP, like the agent of EKS Pod Identity on every node."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from localcluster.records import Keys


@dataclass
class Agent:
    """An agent on loopback. It does not listen before `start`.

    Attributes:
        keys: the credentials that it gives.
        refusals: HTTP statuses of its first answers.
        asked: number of requests so far.
    """

    keys: Keys
    refusals: list[int] = field(default_factory=list)
    asked: int = 0
    _server: ThreadingHTTPServer | None = None

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self), bind_and_activate=False)
        self._server.server_bind()  # reserves the port, and refuses connections until `start`

    @property
    def environment(self) -> dict[str, str]:
        """Returns the variables that the node's webhook sets in a pod."""
        assert self._server is not None
        address = f"http://127.0.0.1:{self._server.server_address[1]}/v1/credentials"
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": address, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pod-token"}

    def start(self) -> None:
        """Starts to listen and answer."""
        assert self._server is not None
        self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Closes the port."""
        assert self._server is not None
        self._server.server_close()

    def answer(self, token: str | None) -> tuple[int, Mapping[str, str]]:
        """Returns status and body of the next answer."""
        self.asked += 1
        if self.refusals:
            return self.refusals.pop(0), {"message": "not yet"}
        if token != "pod-token":
            return 403, {"message": "who is this?"}
        return 200, {
            "AccessKeyId": self.keys.access_key,
            "SecretAccessKey": self.keys.secret_key,
            "Token": "",
            "Expiration": "2099-01-01T00:00:00Z",
        }


@contextmanager
def agent(keys: Keys, *refusals: int) -> Iterator[Agent]:
    """Yields an agent. Closes it at the end."""
    made = Agent(keys, list(refusals))
    try:
        yield made
    finally:
        made.stop()


def _handler(owner: Agent) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = owner.answer(self.headers.get("Authorization"))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    return Handler
