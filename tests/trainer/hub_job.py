"""A job with an hf:// model or hf:// data, as a pod runs it: preflight and training, each in a new process.

The Hub's client reads its variables when it is imported. So one test process could use only one Hub.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_trainer.contract.layout import HUB_TOKEN_ENV, RECIPE_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.termination import Termination
from trainer.running import QUESTIONS


@dataclass(frozen=True, kw_only=True)
class End:
    """How a process ended."""

    code: int
    stdout: str
    stderr: str
    message: Termination
    everything: str
    """Its output, log and termination message together."""


@dataclass(frozen=True, kw_only=True)
class HubJob:
    """A recipe with a model, data and a local output."""

    folder: Path
    endpoint: str
    model: dict[str, Any]
    token: str | None = None
    """Content of the mounted Secret's key; None: the recipe has no token."""
    lora: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] | None = None
    """The recipe's section; None: local rows."""
    dataset_revisions: dict[str, str] = field(default_factory=dict)

    def preflight(self, **environment: str) -> End:
        return self._run(["preflight"], "preflight", environment)

    def train(self, **environment: str) -> End:
        return self._run([], "train", environment)

    def _run(self, arguments: list[str], name: str, more: dict[str, str]) -> End:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        (folder / "work").mkdir()
        (folder / "recipe.json").write_text(json.dumps(self._recipe()))
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        environment = {
            **inherited,
            "OMP_NUM_THREADS": "1",
            "HOME": str(folder / "work"),
            "HF_ENDPOINT": self.endpoint,
            RECIPE_ENV: str(folder / "recipe.json"),
            WORK_ENV: str(folder / "work"),
            TERMINATION_ENV: str(folder / "termination"),
            **more,
        }
        if self.token is not None:
            environment[HUB_TOKEN_ENV] = str(self.folder / "token")
            if self.token:
                (self.folder / "token").write_text(self.token + "\n")
        done = subprocess.run(
            [sys.executable, "-m", "finetune_trainer", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        text = (folder / "termination").read_text()
        message = Termination.read(text)
        assert message is not None, done.stderr
        return End(
            code=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            message=message,
            everything=done.stdout + done.stderr + text,
        )

    def _recipe(self) -> dict[str, Any]:
        data = self.folder / "train.jsonl"
        if self.dataset is None:
            data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        return {
            "job": {"name": "tiny"},
            "model": self.model,
            "dataset": self.dataset or {"uri": f"file://{data}"},
            "datasetRevisions": self.dataset_revisions,
            "lora": {"rank": 4, **self.lora},
            "training": {"maxSteps": 2, "batchSize": 8},
            "output": {"uri": f"file://{self.folder / 'out'}"},
        }
