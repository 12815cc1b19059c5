"""Runs the trainer in the test's own process, with local files and real parts."""

import json
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.train.context import Context, Result
from finetune_trainer.train.run import run

QUESTIONS = [
    {"prompt": f"Question: what is {number}? Answer:", "completion": f" it is {number * 7}" + " very" * (number % 9)}
    for number in range(24)
]
"""Rows of different lengths."""
PAIRS = [
    {
        "prompt": f"Question: what is {number}? Answer:",
        "chosen": f" it is {number * 7}" + " very" * (number % 5),
        "rejected": f" no {number}" + " quick" * (number % 7),
    }
    for number in range(24)
]
"""Pairs with answers of different lengths."""


def recipe_of(base: Path, data: Path, output: Path, /, **sections: Any) -> Recipe:
    """Returns a recipe with file:// URIs. It trains two short steps unless `training` says otherwise."""
    training = {"maxSteps": 2, "batchSize": 8, "learningRate": "2e-3", "warmup": "0"} | sections.pop("training", {})
    return Recipe.model_validate(
        {
            "job": {"name": "tiny"} | sections.pop("job", {}),
            "model": {"uri": f"file://{base}"} | sections.pop("model", {}),
            "dataset": {"uri": f"file://{data}"} | sections.pop("dataset", {}),
            "lora": {"rank": 4, "alpha": 8} | sections.pop("lora", {}),
            "training": training,
            "output": {"uri": f"file://{output}"} | sections.pop("output", {}),
            **sections,
        }
    )


@dataclass(kw_only=True)
class LocalRun:
    """A recipe and the folder of its run."""

    recipe: Recipe
    folder: Path
    stop: threading.Event = field(default_factory=threading.Event)
    seen: list[Progress] = field(default_factory=list)
    on_progress: Callable[[Progress], object] = lambda _: None
    writer: str = "writer-of-the-test"
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, base: Path, folder: Path, rows: list[dict[str, Any]], /, **sections: Any) -> "LocalRun":
        """Writes the rows and makes the recipe."""
        data = folder / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return cls(recipe=recipe_of(base, data, folder / "out", **sections), folder=folder)

    def changed(self, **sections: Any) -> "LocalRun":
        """Returns the same run with changed sections of the recipe."""
        values = self.recipe.to_dict()
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
        return LocalRun(recipe=Recipe.model_validate(values), folder=self.folder, environment=self.environment)

    def _tell(self, progress: Progress) -> None:
        self.on_progress(progress)

    def __call__(self) -> Result:
        """Runs the training."""
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            return run(
                self.recipe,
                Context(
                    work=Path(work),
                    open_store=StoreRegistry(self.recipe.storage, None),
                    writer=self.writer,
                    pvc_root=self.folder,
                    reporter=Reporter([self.seen.append, self._tell]),
                    stop=self.stop,
                    environment=self.environment,
                    allow_cpu=True,
                ),
            )


def folder_of(result: Result) -> Path:
    """Returns the adapter's folder of a run with a file:// output."""
    return Path(result.output.uri.removeprefix("file://"))


def manifest_of(result: Result) -> Manifest:
    """Returns the manifest of a run with a file:// output."""
    return Manifest.model_validate_json(Path(result.output.manifest_uri.removeprefix("file://")).read_bytes())


def adapter_files(folder: Path) -> dict[str, bytes]:
    """Returns the files that are equal byte for byte between equal runs.

    The run's record, which contains times, is left out.
    """
    record = {"README.md", "loss.svg", "report.html"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name not in record}
