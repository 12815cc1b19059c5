"""`kubectl finetune` as a user types it, on the real API server. Nothing of it is replaced.

There is no operator: the tests write the statuses that it would write.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from component.plane import Plane, a_finetunejob
from finetune_operator.cli import main


@dataclass
class Said:
    """How a command ended.

    Attributes:
        code: its exit code.
        out, err: what it printed.
    """

    code: int
    out: str
    err: str


@dataclass
class User:
    """A user with a kubeconfig, whose context has one namespace."""

    plane: Plane
    namespace: str
    capture: pytest.CaptureFixture[str]
    kubeconfig: Path
    files: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def types(self, *words: str | Path) -> Said:
        """Runs `kubectl finetune WORDS`. No command may end with a traceback."""
        self.capture.readouterr()
        code = main([str(word) for word in words])
        out, err = self.capture.readouterr()
        assert "Traceback" not in err
        assert "unexpected error" not in err, err
        return Said(code, out, err)

    def applies(self, name: str = "job", **spec: Any) -> dict[str, Any]:
        """Creates a FineTuneJob. Returns it."""
        manifest = a_finetunejob(self.namespace, name, **spec)
        self.plane.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        return self.plane.get("finetunejob", self.namespace, name)

    def reports(self, name: str, **status: Any) -> None:
        """Writes parts of a job's status, as the operator does."""
        patch = json.dumps({"status": status})
        how = ("-n", self.namespace, "--subresource=status", "--type=merge", "--patch-file=/dev/stdin")
        self.plane.kubectl("patch", "finetunejob", name, *how, stdin=patch)

    def stored(self, name: str = "job") -> dict[str, Any]:
        """The job as it is stored."""
        return self.plane.get("finetunejob", self.namespace, name)

    def file(self, name: str = "job", **spec: Any) -> Path:
        """Writes a YAML with a FineTuneJob that names no namespace. Returns its path."""
        manifest = a_finetunejob(self.namespace, name, **spec)
        del manifest["metadata"]["namespace"]
        path = self.files / f"{name}.yaml"
        path.write_text(json.dumps(manifest))
        return path

    def ago(self, **past: float) -> str:
        """A time in the past as the API server writes it."""
        return (self.now - timedelta(**past)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def condition(self, type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
        """A condition for a status."""
        words = {"reason": reason, "message": message, "lastTransitionTime": self.ago(minutes=1)}
        return {"type": type_, "status": status, "observedGeneration": 1, **words}

    def runs(self, name: str = "job", **status: Any) -> None:
        """Writes the status of a job whose second attempt trains."""
        self.reports(
            name,
            **{
                "observedGeneration": 1,
                "phase": "Running",
                "lastPhaseTransitionTime": self.ago(minutes=5),
                "startTime": self.ago(hours=1),
                "conditions": [
                    self.condition("Succeeded", "Unknown", "Training", "attempt 2 trains"),
                    self.condition("Finished", "False", "Training"),
                ],
                "attempt": 2,
                "restarts": 1,
                "gpus": 2,
                "gpuSeconds": 3600,
                "gpuPrice": "3.00",
                "cost": "3.0000",
                "podName": f"{name}-train-2-x7",
                "jobName": f"{name}-train-2",
                "attempts": [
                    {
                        "number": 1,
                        "startTime": self.ago(hours=1),
                        "endTime": self.ago(minutes=30),
                        "reason": "GpuOutOfMemory",
                        "message": "CUDA out of memory\nin the first step",
                        "exitCode": 21,
                        "counted": True,
                    },
                    {"number": 2, "startTime": self.ago(minutes=30)},
                ],
                "progress": {
                    "stage": "Training",
                    "display": "62% 310/500",
                    "percent": 62,
                    "step": 310,
                    "totalSteps": 500,
                    "loss": "1.2345",
                    "learningRate": "0.0002",
                    "tokensPerSecond": 12500,
                    "etaSeconds": 5400,
                    "checkpointStep": 300,
                    "checkpointTime": self.ago(minutes=4),
                },
                **status,
            },
        )

    def succeeds(self, name: str = "job", **status: Any) -> None:
        """Writes the status of a job that has succeeded."""
        self.runs(
            name,
            **{
                "phase": "Succeeded",
                "completionTime": self.ago(minutes=1),
                "conditions": [
                    self.condition("Succeeded", "True", "TrainingSucceeded", "the adapter is there"),
                    self.condition("Finished", "True", "TrainingSucceeded"),
                ],
                "output": {
                    "uri": "s3://models/adapters/job/0123456789ab/2-0a1b2c3d",
                    "manifestUri": "s3://models/adapters/job/0123456789ab/manifest.json",
                    "digest": "sha256:" + "0" * 64,
                    "sizeBytes": 1,
                    "baseModel": "org/model",
                    "rank": 16,
                    "metrics": {"loss": "0.5", "eval_loss": "0.75"},
                },
                **status,
            },
        )

    def fails(self, name: str = "job", reason: str = "DatasetInvalid", message: str = "line 3: not JSON") -> None:
        """Writes the status of a job that has failed."""
        self.runs(
            name,
            phase="Failed",
            completionTime=self.ago(minutes=1),
            failure={"reason": reason, "message": message, "exitCode": 13},
            conditions=[
                self.condition("Succeeded", "False", reason, message),
                self.condition("Finished", "True", reason),
                self.condition("Stalled", "True", reason),
            ],
        )


@pytest.fixture
def user(
    plane: Plane,
    namespace: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> User:
    """A user with all rights."""
    config = json.loads(plane.kubectl("config", "view", "--raw", "-o", "json"))
    for context in config["contexts"]:
        context["context"]["namespace"] = namespace
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return User(plane, namespace, capsys, kubeconfig, tmp_path)
