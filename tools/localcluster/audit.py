"""Counts the writes to the API server exactly, from its audit log.

The policy logs every request that changes something and nothing else. Events and leases
are skipped: they are written by every component all the time and say nothing about
what a controller costs. Questions that have the form of a write (`tokenreviews`,
`subjectaccessreviews`, a service account's `token`) store nothing and are left out too.
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
    """One request that changed something, or tried to."""

    agent: str
    """The client's program: its user agent up to the first slash."""
    user_agent: str
    user: str
    verb: str
    resource: str
    """With the subresource: `pods/status`."""
    namespace: str
    name: str
    code: int
    """What the server answered: a 409 costs it nearly as much as a 200."""
    field_manager: str
    """Whose fields were written, where the request says so."""

    @classmethod
    def parse(cls, line: str) -> Write:
        """Reads one line of the log."""
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
    """The writes since a moment: `mark = log.mark()`, act, `log.count(mark)`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> int:
        """Now, as a place in the log."""
        self._settle()
        return self._size()

    def writes(self, since: int = 0, *, namespace: str | None = None) -> Iterator[Write]:
        """The writes after a mark, of one namespace or of all."""
        self._settle()
        with self.path.open("rb") as log:
            log.seek(since)
            for line in log:
                write = Write.parse(line.decode())
                if namespace is None or write.namespace == namespace:
                    yield write

    def count(self, since: int = 0, *, namespace: str | None = None) -> Counter[str]:
        """How many writes each program made after a mark."""
        return Counter(write.agent for write in self.writes(since, namespace=namespace))

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _settle(self) -> None:
        """The server logs a request after it answered it: waits until the log rests."""
        deadline = time.monotonic() + 20 * _SETTLED_SECONDS
        size = self._size()
        while time.monotonic() < deadline:
            time.sleep(_SETTLED_SECONDS)
            if size == (size := self._size()):
                return
