"""Runs kubectl.

The levers use kubectl and not a client library, because kubectl reads every kind of kubeconfig, and a person can type
the same command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.commands import run
from localcluster.waiting import wait_for

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """The kubectl program and the cluster on which it works.

    Attributes:
        program: path of the program.
        kubeconfig: file with the cluster's address and the user's credentials.
    """

    program: str
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs one command and returns its standard output.

        Raises:
            ClusterError: the command failed, or took more than `timeout` seconds.
        """
        argv = [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]
        return run(argv, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Returns the parsed output of `kubectl get … -o json`."""
        found: dict[str, Any] = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Returns the objects of a list."""
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def apply(self, *objects: Manifest) -> None:
        """Applies objects by server-side apply. Takes over fields that another manager owns."""
        listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self(
            "apply", "--server-side", "--force-conflicts", "--field-manager=localcluster",
            "-f", "-", stdin=json.dumps(listing),
        )  # fmt: skip

    def post(self, path: str, body: Manifest) -> None:
        """Sends a POST to a path of the API, for subresources without a kubectl command."""
        self("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    def wait_established(self, crd: str, *, timeout: float = 60) -> None:
        """Waits until the API server serves the resource of a CRD.

        `kubectl wait` fails on a CRD that has no conditions yet, as it has none right after it was applied.

        Raises:
            ClusterError: the CRD is not established after `timeout` seconds.
        """

        def established() -> bool:
            conditions = self.get("crd", crd).get("status", {}).get("conditions") or []
            return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)

        wait_for(f"the CRD {crd} to be established", established, timeout=timeout)
