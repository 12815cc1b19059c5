"""A restricted namespace for jobs, with the Secret of S3 keys that a user would create, and helpers to observe jobs."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import names
from localcluster import Keys, Target

Job = dict[str, Any]

CPU_ONLY: dict[str, Any] = {"gpus": 0, "cpu": "500m"}
"""Requests no GPU and little CPU, so that several pods fit on a small node."""


@dataclass(frozen=True)
class Lab:
    """One namespace on the target."""

    target: Target
    namespace: str
    endpoint: str
    bucket: str

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Runs kubectl in the namespace."""
        return self.target.kubectl("-n", self.namespace, *arguments, stdin=stdin, timeout=timeout)

    def secret(self, name: str, keys: Keys) -> None:
        """Creates a Secret with S3 keys, as the documentation tells a user."""
        self.kubectl(
            "create", "secret", "generic", name,
            f"--from-literal=AWS_ACCESS_KEY_ID={keys.access_key}",
            f"--from-literal=AWS_SECRET_ACCESS_KEY={keys.secret_key}",
        )  # fmt: skip

    def manifest(self, name: str, **spec: Any) -> Job:
        """Returns a FineTuneJob. Keyword arguments replace sections of a small spec."""
        return {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "model": {"uri": f"s3://{self.bucket}/models/tiny"},
                "dataset": {"uri": f"s3://{self.bucket}/data/train.jsonl"},
                "output": {"uri": f"s3://{self.bucket}/adapters/{self.namespace}"},
                "storage": {"endpoint": self.endpoint, "secretRef": {"name": "s3-credentials"}},
                "resources": CPU_ONLY,
                "retry": {"backoffSeconds": 1},
                **spec,
            },
        }

    def apply(self, name: str, **spec: Any) -> None:
        """Creates or updates a FineTuneJob."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(self.manifest(name, **spec)))

    def patch(self, name: str, **spec: Any) -> None:
        """Changes fields of a FineTuneJob's spec."""
        self.kubectl("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def job(self, name: str) -> Job:
        """Returns the FineTuneJob."""
        return self.target.kubectl.get("-n", self.namespace, "ftj", name)

    def status(self, name: str) -> dict[str, Any]:
        """Returns the FineTuneJob's status."""
        status: dict[str, Any] = self.job(name).get("status") or {}
        return status

    def children(self, name: str, role: str | None = None) -> list[dict[str, Any]]:
        """Returns the FineTuneJob's Jobs, of one role or of both."""
        return self._labelled("jobs", name, role)

    def pods(self, name: str, role: str | None = None) -> list[dict[str, Any]]:
        """Returns the FineTuneJob's pods, of one role or of both."""
        return self._labelled("pods", name, role)

    def _labelled(self, kind: str, name: str, role: str | None) -> list[dict[str, Any]]:
        selector = f"{names.FINETUNEJOB_NAME_LABEL}={name}" + (f",{names.ROLE_LABEL}={role}" if role else "")
        return self.target.kubectl.items("-n", self.namespace, kind, "-l", selector)

    def until(self, what: str, test: Callable[[], Any], seconds: float = 60) -> Any:
        """Calls `test` until it returns a true value. Returns the value.

        Raises:
            AssertionError: it stays false. The message describes the namespace.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := test():
                return found
            time.sleep(0.25)
        raise AssertionError(f"waited {seconds:.0f} s for {what}\n{self.picture()}")

    def until_phase(self, name: str, phase: str, seconds: float = 60) -> dict[str, Any]:
        """Waits for a phase. Returns the status."""

        def shown() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("phase") == phase else None

        found: dict[str, Any] = self.until(f"{name} to be {phase}", shown, seconds)
        return found

    def until_finished(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """Waits for the end of the job by the command that a user would type. Returns the status."""
        try:
            self.kubectl(
                "wait", "--for=condition=Finished", f"ftj/{name}", f"--timeout={seconds:.0f}s", timeout=seconds + 10
            )
        except Exception as error:
            raise AssertionError(f"{name} did not finish: {error}\n{self.picture()}") from error
        return self.status(name)

    def picture(self) -> str:
        """Returns everything in the namespace that may explain a failed test."""
        shown = []
        for command in (
            ("get", "ftj,jobs,pods", "-o", "wide"),
            ("get", "ftj", "-o", "yaml"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("-n", "finetune-system", "logs", "deployment/finetune-operator", "--tail=40"),
        ):
            try:
                shown.append(self.kubectl(*command))
            except Exception as error:  # noqa: BLE001 (the picture is best effort: the test has failed already)
                shown.append(str(error))
        return "\n".join(shown)


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """Returns a condition of the status. Empty when it is absent."""
    return next((item for item in status.get("conditions", []) if item["type"] == type_), {})


@contextmanager
def namespace(target: Target, name: str, bucket: str) -> Iterator[Lab]:
    """Yields a restricted namespace with the Secret `s3-credentials`. Deletes it at the end."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        lab = Lab(target, name, target.publish_s3(name), bucket)
        lab.secret("s3-credentials", target.s3.admin)
        yield lab
    finally:
        target.kubectl("delete", "namespace", name, "--wait=false")
