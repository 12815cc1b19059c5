"""kubectl, as a function.

The levers go through it and not through a client library: it takes every kubeconfig there
is, and it is what a person would type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.commands import run

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """The program and the cluster it talks to."""

    program: str
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs one command and returns what it printed."""
        argv = [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(argv, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get … -o json`, read."""
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects of a list."""
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def apply(self, *objects: Manifest) -> None:
        """Applies objects on the server's side."""
        listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self(
            "apply", "--server-side", "--force-conflicts", "--field-manager=localcluster",
            "-f", "-", stdin=json.dumps(listing),
        )  # fmt: skip

    def post(self, path: str, body: Manifest) -> None:
        """Posts to a path of the API, for subresources that have no command."""
        self("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
