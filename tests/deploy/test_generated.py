"""scripts/generate: what it writes is what is committed, and --check finds what is not."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripts.chart_readme import values_table

from finetune_operator.api.crd import custom_resource_definition
from finetune_trainer.contract.failure import FAILURES

ROOT = Path(__file__).parents[2]
FILES = ("manifests/crd/finetunejobs.yaml", "helm/finetune-operator/templates/crd.yaml", "docs/reference.md")
README = ROOT / "helm/finetune-operator/README.md"


def generate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "scripts.generate", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


def test_what_is_committed_is_current() -> None:
    assert generate("--check").stderr == ""


def test_check_names_every_stale_file_and_the_remedy(tmp_path: Path) -> None:
    assert generate("--root", str(tmp_path)).returncode == 0
    assert generate("--root", str(tmp_path), "--check").returncode == 0
    (tmp_path / FILES[0]).write_text("stale")
    (tmp_path / FILES[2]).unlink()
    done = generate("--root", str(tmp_path), "--check")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{name} is stale: run scripts/generate and commit what it writes" for name in (FILES[0], FILES[2])
    ]
    assert (tmp_path / FILES[0]).read_text() == "stale"


def test_the_yaml_says_what_the_crd_says() -> None:
    # Python's YAML and Go's differ about numbers like 2e-4; the API server's reading is tested in test_resource.
    assert yaml.safe_load((ROOT / FILES[0]).read_text()) == custom_resource_definition()


def test_the_reference_has_every_field_of_the_spec() -> None:
    text = (ROOT / FILES[2]).read_text()
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name in schema["properties"]["spec"]["properties"]:
        assert f"| `{name}` |" in text
    assert "## spec.scheduling.tolerations[]" in text


def test_the_reference_has_the_defaults_of_a_job_without_a_profile_as_yaml_has_them() -> None:
    text = (ROOT / FILES[2]).read_text()
    for row in ("`rank` | integer 1…1024 | `16`", '`warmup` | string | `"0.03"`', "`doubleQuant` | boolean | `true`"):
        assert f"| {row} |" in text
    assert "| `targetModules` | list of string | `[all-linear]` |" in text


def test_every_failure_has_its_row() -> None:
    text = (ROOT / "docs/failures.md").read_text()
    for reason, failure in FAILURES.items():
        code = "" if failure.exit_code is None else int(failure.exit_code)
        assert f"| `{reason}` | {code} | {failure.policy} |" in text
        assert failure.remedy in text


def test_the_readme_of_the_chart_has_every_value_with_its_default_and_its_comment() -> None:
    text = README.read_text(encoding="utf-8")
    for row in (
        "| `images.operator.digest` |  | `sha256:…`; it wins over the tag. |",
        "| `replicaCount` | `1` | With more than one, one replica works and the others wait to take over. |",
        "| `resources.requests` | `{cpu: 50m, memory: 128Mi}` | What it asks for. |",
    ):
        assert row in text


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        values_table("# A.\na:\n  b: 1\n")
    assert "| `a.b` | `[x, y]` | One two. |" in values_table("a:\n  # One\n  # two.\n  b: [x, y] # no\n")
