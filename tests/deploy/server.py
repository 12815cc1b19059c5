"""kubectl as a user types it, and the objects of these tests."""

import copy
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster.kubectl import Kubectl
from localcluster.waiting import wait_for

Manifest = dict[str, Any]

MINIMAL: Manifest = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "support-bot", "namespace": "default"},
    "spec": {
        "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
        "dataset": {"uri": "s3://data/support/train.jsonl"},
        "output": {"uri": "s3://models/adapters"},
    },
}

ABSENT = object()
"""A value for `job` that removes the field."""


class RefusedError(Exception):
    """kubectl failed. The message is its output."""


@dataclass(frozen=True)
class Server:
    """An API server."""

    program: str
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl. Returns its output.

        Raises:
            RefusedError: it failed. The message is what the user reads.
        """
        argv = [self.program, f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise RefusedError(done.stderr)
        return done.stdout

    def apply(self, manifest: Mapping[str, Any], *arguments: str) -> str:
        """Runs `kubectl apply`."""
        return self.kubectl("apply", "-f", "-", *arguments, stdin=json.dumps(manifest))

    def refusal(self, manifest: Mapping[str, Any]) -> str:
        """Returns the server's error for a new object. Empty when the server accepts it."""
        try:
            self.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
        except RefusedError as error:
            return str(error)
        return ""

    def wait_established(self) -> None:
        """Waits until the API server serves FineTuneJobs."""
        Kubectl(self.program, self.kubeconfig).wait_established("finetunejobs.finetune.dev")

    def explain(self, field: str) -> str:
        """Returns the output of `kubectl explain`, on one line.

        The API server publishes the schema of a CRD some time after it serves the resource, so this waits for it.
        """

        def said() -> str:
            try:
                return self.kubectl("explain", field)
            except RefusedError:
                return ""

        return " ".join(wait_for(f"the schema of {field}", said, timeout=60).split())

    def has(self, *arguments: str) -> bool:
        """Returns whether `kubectl get` finds the object."""
        try:
            self.kubectl("get", *arguments)
        except RefusedError:
            return False
        return True

    def get(self, *arguments: str) -> Manifest:
        """Returns the parsed output of `kubectl get`."""
        found: Manifest = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found


def job(changes: Mapping[str, Any] | None = None, **metadata: str) -> Manifest:
    """Returns the minimal object with changed fields of its spec, by dotted path."""
    manifest = copy.deepcopy(MINIMAL)
    manifest["metadata"].update(metadata)
    for path, value in (changes or {}).items():
        *sections, field = path.split(".")
        target = manifest["spec"]
        for section in sections:
            target = target.setdefault(section, {})
        if value is ABSENT:
            target.pop(field, None)
        else:
            target[field] = value
    return manifest
