"""Requests and watches for load and measurement. They use little CPU, because the measured programs share the machine.

The operator's own client is not used, so that a benchmark does not measure with the code that it measures.
"""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

MERGE_PATCH = "application/merge-patch+json"

FINETUNEJOBS = "/apis/finetune.dev/v1alpha1/finetunejobs"
JOBS = "/apis/batch/v1/jobs"
PODS = "/api/v1/pods"


class ApiError(Exception):
    """The API server refused a request."""


class Api:
    """A connection pool to one API server.

    Args:
        kubeconfig: a kubeconfig whose first user has a token. It is JSON, as the local cluster writes it.
        agent: user agent, by which the audit log distinguishes programs.
        connections: largest number of concurrent requests.
    """

    def __init__(self, kubeconfig: Path, *, agent: str, connections: int = 32) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        self._server: str = cluster["server"]
        self._connections = connections
        self._headers = {
            "Authorization": f"Bearer {config['users'][0]['user']['token']}",
            "User-Agent": f"{agent}/1",
            "Accept": "application/json",
        }
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=self._connections)
        self._session = aiohttp.ClientSession(self._server, connector=connector, headers=self._headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """Sends a request. Returns the parsed answer.

        Raises:
            ApiError: the answer is an error.
        """
        assert self._session is not None
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise ApiError(f"{method} {path}: {answer.status} {text[:500].decode(errors='replace')}")
            found: dict[str, Any] = json.loads(text)
            return found

    async def list(self, path: str) -> tuple[list[dict[str, Any]], str]:
        """Returns all objects of a collection, and the resourceVersion from which to watch."""
        join = "&" if "?" in path else "?"
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            answer = await self.request("GET", f"{path}{join}limit=500{token}")
            items.extend(answer["items"])
            token = f"&continue={answer['metadata'].get('continue', '')}"
            if token == "&continue=":
                return items, answer["metadata"]["resourceVersion"]

    async def watch(
        self, path: str, version: str, opened: Callable[[], None] = lambda: None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yields the events of a collection after a resourceVersion, until the server ends the watch.

        Args:
            path: path of the collection.
            version: the resourceVersion, as `list` returned it.
            opened: called when the server has accepted the watch. From then on, no event is missed.

        Raises:
            ApiError: the watch is refused, or ends because the resourceVersion is too old.
        """
        assert self._session is not None
        join = "&" if "?" in path else "?"
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(
            f"{path}{join}watch=1&resourceVersion={version}&timeoutSeconds=3600", timeout=timeout
        ) as answer:
            if answer.status != 200:
                raise ApiError(f"watch {path}: {answer.status} {await answer.text()}")
            opened()
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(f"watch {path}: {event['object'].get('message')}")
                    yield event
