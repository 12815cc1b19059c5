"""The wheel with its extra `trainer` and nothing else trains without a network.

The wheel is built and unpacked, and beside it lie links to those packages of the tests' environment that its extra
brings, and to no other. A second environment of gigabytes would show the same.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainer.running import QUESTIONS

pytestmark = pytest.mark.trainer

ROOT = Path(__file__).parents[2]
PACKAGES = Path(sysconfig.get_path("purelib"))
JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: offline}}
spec:
  model:    {{uri: "file://{model}"}}
  dataset:  {{uri: "file://{data}"}}
  training: {{maxSteps: 2, batchSize: 8}}
  output:   {{uri: "file://{output}"}}
  resources: {{gpus: 0}}
"""


def brought(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The names of a distribution and of all that it requires, with these extras."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in metadata.requires(name) or []:
        needed_files = Requirement(text)
        if needed_files.marker is None or any(
            needed_files.marker.evaluate({"extra": extra}) for extra in (extras or {""})
        ):
            try:
                metadata.version(needed_files.name)
            except metadata.PackageNotFoundError:
                continue  # for GPUs, or overridden
            yield from brought(canonicalize_name(needed_files.name), frozenset(needed_files.extras), seen)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages and those that its extra brings."""
    folder = tmp_path_factory.mktemp("installed")
    uv = subprocess.run([ROOT / "scripts/uv"], check=True, capture_output=True, text=True).stdout.strip()
    built = [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)]
    subprocess.run(built, check=True, capture_output=True)
    [wheel] = (folder / "dist").glob("*.whl")
    target = [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target"]
    subprocess.run([*target, str(folder / "site"), str(wheel)], check=True, capture_output=True)
    for name in set(brought("finetune-operator", frozenset({"trainer"}), set())) - {"finetune-operator"}:
        for top in {file.parts[0] for file in metadata.distribution(name).files or []} - {"..", "__pycache__"}:
            if not (link := folder / "site" / top).exists():
                link.symlink_to(PACKAGES / top)
    links = {path.name for path in (folder / "site").iterdir()}
    assert {"torch", "transformers", "pydantic"} <= links
    assert not links & {"kopf", "kubernetes", "pytest"}
    return folder / "site"


def finetune(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder elsewhere, without a network."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        alone = []  # this machine does not allow it
    return subprocess.run(
        [*alone, sys.executable, "-S", str(installed / "bin/finetune"), *arguments],
        cwd=folder,
        env={
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(installed),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_trainer_extra_alone_trains_without_a_network(installed: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    job = JOB.format(model=tiny_model, data=tmp_path / "train.jsonl", output=tmp_path / "out")
    (tmp_path / "job.yaml").write_text(job)

    commands = (
        (["validate", "--local"], "offline is valid"),
        (["local", "preflight"], "24 rows"),
        (["local", "run"], "PeftModel"),
    )
    for command, says in commands:
        done = finetune(installed, tmp_path, *command, "job.yaml")
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
        assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").rglob("manifest.json"))) == 1


def test_the_wheel_has_what_its_packages_have(installed: Path) -> None:
    for package in ("operator/finetune_operator", "trainer/finetune_trainer"):
        source = ROOT / package
        files = {file.relative_to(source.parent) for file in source.rglob("*") if file.is_file()}
        wanted = {file for file in files if "__pycache__" not in file.parts}
        assert {file for file in wanted if not (installed / file).is_file()} == set()
        assert (installed / source.name / "py.typed").is_file()
