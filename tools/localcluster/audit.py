"""Counts the writes to the API server exactly, from its audit log.

The audit policy logs every request that changes something. Events and leases are left out: every component writes them
all the time, and they say nothing about the cost of a controller. Requests that store nothing are left out too,
although they have a write's verb (`tokenreviews`, `subjectaccessreviews`, a service account's `token`).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {
            "level": "None",
            "resources": [
                {"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
                {"group": "", "resources": ["serviceaccounts/token"]},
                {"group": "authentication.k8s.io"},
                {"group": "authorization.k8s.io"},
            ],
        },
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata"},
    ],
}

_SETTLED_SECONDS = 0.5


@dataclass(frozen=True)
class Write:
    """One write request, successful or not."""

    agent: str
    """The client program: the user agent up to the first slash."""
    user_agent: str
    user: str
    verb: str
    resource: str
    """With the subresource: `pods/status`."""
    namespace: str
    name: str
    code: int
    """HTTP status of the answer. A 409 costs the server nearly as much as a 200."""
    field_manager: str
    """The request's field manager; empty without one."""

    @classmethod
    def parse(cls, line: str) -> Write:
        """Parses one line of the audit log."""
        event = json.loads(line)
        target = event.get("objectRef", {})
        resource = target.get("resource", "")
        if subresource := target.get("subresource"):
            resource = f"{resource}/{subresource}"
        user_agent = event.get("userAgent", "")
        return cls(
            agent=user_agent.split("/", 1)[0],
            user_agent=user_agent,
            user=event.get("user", {}).get("username", ""),
            verb=event["verb"],
            resource=resource,
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
            code=event.get("responseStatus", {}).get("code", 0),
            field_manager=parse_qs(urlsplit(event.get("requestURI", "")).query).get("fieldManager", [""])[0],
        )


class AuditLog:
    """The audit log. Count the writes of an action by `mark = log.mark()`, the action, `log.count(mark)`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        """Returns the end of the log, in bytes, as a mark for `writes` and `count`."""
        self._settle()
        return self._size()

    def writes(self, since: int = 0, *, namespace: str | None = None) -> Iterator[Write]:
        """Yields the writes after a mark.

        Args:
            since: the mark; 0 is the start of the log.
            namespace: the only namespace that counts; None counts all.
        """
        self._settle()
        with self.path.open("rb") as log:
            log.seek(since)
            for line in log:
                write = Write.parse(line.decode())
                if namespace is None or write.namespace == namespace:
                    yield write

    def count(self, since: int = 0, *, namespace: str | None = None) -> Counter[str]:
        """Returns the number of writes after a mark, by client program. See `writes`."""
        return Counter(write.agent for write in self.writes(since, namespace=namespace))

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _settle(self) -> None:
        """Waits until the log does not grow for half a second, because the server logs a request after its answer."""
        deadline = time.monotonic() + 20 * _SETTLED_SECONDS
        size = self._size()
        while time.monotonic() < deadline:
            time.sleep(_SETTLED_SECONDS)
            if size == (size := self._size()):
                return
