"""What a release publishes, as scripts/release-artifacts makes it, and the workflows that publish it."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from scripts.release_artifacts import packages
from scripts.release_artifacts.archive import tgz
from scripts.release_artifacts.chart import changes

from finetune_trainer.contract.version import __version__

ROOT = Path(__file__).parents[2]
REGISTRY = "registry.example.com/team"
SOURCE = "https://git.example.com/finetune-operator"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
IMAGES = {name: f"{REGISTRY}/{name}:{__version__}" for name in ("finetune-operator", "finetune-trainer")}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a release without wheel and sdist, whose build asks an index. The script compares two builds."""
    folder = tmp_path_factory.mktemp("release") / "files"
    argv = [sys.executable, "-m", "scripts.release_artifacts", "--no-python", "--output", str(folder)]
    subprocess.run([*argv, "--registry", f"{REGISTRY}/", "--source", SOURCE], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_every_file_has_its_checksum(released: Path) -> None:
    lines = (line.partition("  ") for line in (released / "sha256sums.txt").read_text().splitlines())
    sums = {name: digest for digest, _, name in lines}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in released.iterdir()}
    assert sums == {name: digest for name, digest in found.items() if name != "sha256sums.txt"}
    assert set(sums) == {
        f"finetune-operator-{__version__}.tgz",
        *("install.yaml", "install-namespaced.yaml", "install-openshift.yaml"),
        *(f"{image}.{kind}" for image in IMAGES for kind in ("cdx.json", "licenses.txt")),
    }


def test_an_archive_depends_on_its_files_alone() -> None:
    files = {"a/b": b"1", "a": b"2"}
    assert tgz(files, modified=1) == tgz(dict(reversed(files.items())), modified=1)
    assert tgz(files, modified=1) != tgz(files, modified=2)


def test_the_packaged_chart_knows_where_everything_is(released: Path) -> None:
    with helm_python.Chart.load_archive((released / f"finetune-operator-{__version__}.tgz").read_bytes()) as chart:
        described, values = chart.metadata, chart.values
        rendered = chart.render({}, name="finetune-operator", namespace="finetune-system")
    assert values["images"]["registry"].rstrip("/") == REGISTRY
    [container] = yaml.safe_load(rendered["finetune-operator/templates/deployment.yaml"])["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["image"] == IMAGES["finetune-operator"]
    assert (described["home"], described["sources"]) == (SOURCE, [SOURCE])
    annotations = described["annotations"]
    listed = yaml.safe_load(annotations["artifacthub.io/images"])
    assert {item["name"]: item["image"] for item in listed} == IMAGES
    kinds = {item["kind"] for item in yaml.safe_load(annotations["artifacthub.io/changes"])}
    assert kinds <= {"added", "changed", "fixed", "removed", "security", "deprecated"}
    assert kinds


def test_the_changes_are_those_of_the_version_or_else_those_to_come() -> None:
    text = "# Log\n\n## [Unreleased]\n\n### Added\n\n- New.\n\n## [1.0.0] - 2026-01-01\n\n### Fixed\n\n- A\n  fault.\n"
    assert changes(text, "1.0.0") == [{"kind": "fixed", "description": "A fault."}]
    assert changes(text, "2.0.0") == [{"kind": "added", "description": "New."}]


@pytest.mark.parametrize("name", ["install.yaml", "install-namespaced.yaml", "install-openshift.yaml"])
def test_one_file_installs_the_images_of_the_release(released: Path, name: str) -> None:
    objects = list(yaml.load_all((released / name).read_text(), Loader=yaml.CSafeLoader))
    [deployment] = [item for item in objects if item["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"] == environment["FINETUNE_OPERATOR_IMAGE"] == IMAGES["finetune-operator"]
    assert environment["FINETUNE_TRAINER_IMAGE"] == IMAGES["finetune-trainer"]
    assert ("FINETUNE_WATCH_NAMESPACES" in environment) == (name == "install-namespaced.yaml")
    assert {"Namespace", "CustomResourceDefinition"} <= {item["kind"] for item in objects}
    assert "localhost/" not in (released / name).read_text()


@pytest.mark.parametrize(("image", "part"), [("finetune-operator", "kopf"), ("finetune-trainer", "torch")], ids=str)
def test_the_bill_of_materials_has_every_package_of_the_image(released: Path, image: str, part: str) -> None:
    bill = json.loads((released / f"{image}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    names = {item["name"] for item in bill["components"]}
    files = {"finetune-operator": ["operator"], "finetune-trainer": ["trainer", "trackers"]}[image]
    requirements = "\n".join((ROOT / f"requirements/{name}.txt").read_text() for name in files)
    assert names == {name for name, *_ in packages.pinned(requirements)}
    [component] = [item for item in bill["components"] if item["name"] == part]
    assert component["purl"] == f"pkg:pypi/{part}@{component['version']}"
    assert component["licenses"]
    assert len({item["bom-ref"] for item in bill["components"]}) == len(bill["components"])
    assert f"{part}=={component['version']}" in requirements
    for reference in component["externalReferences"]:
        assert all(item["content"] in requirements for item in reference["hashes"])


def test_the_licences_of_cuda_are_there_with_their_text(released: Path) -> None:
    text = (released / "finetune-trainer.licenses.txt").read_text()
    part = text[text.index("\nnvidia-cublas ") :].partition("=" * 80)[0]
    assert "NVIDIA" in part
    assert len(part) > 10_000


def steps(workflow: Path) -> list[dict[str, Any]]:
    """All steps of a workflow's jobs."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_pinned_actions_and_what_the_repository_has(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    for used in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[0-9.]+", used), used
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    assert set(re.findall(r"\bmake ([a-z-]+)", commands)) <= targets
    for script in re.findall(r"(?:^|\s)((?:scripts|\.ci)/[\w-]+)", commands):
        assert (ROOT / script).stat().st_mode & 0o100, script
    for path in re.findall(r"images/\w+/Dockerfile", commands):
        assert (ROOT / path).is_file()
    assert "permissions" in yaml.safe_load(text)


def test_a_tag_that_is_not_the_version_or_has_no_changes_is_not_released(tmp_path: Path) -> None:
    def check(tag: str) -> str:
        argv = [str(tmp_path / "scripts/check-release"), tag]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stderr

    for name in ("scripts/check-release", "trainer/finetune_trainer/contract/version.py", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "scripts/check-release").chmod(0o755)
    assert check("v9.9.9") == f"check-release: the tag is v9.9.9, and the version is {__version__}\n"
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("# Log\n\n## [Unreleased]\n\n- New.\n")
    assert check(f"v{__version__}") == f"check-release: CHANGELOG.md has no section [{__version__}]\n"
    changelog.write_text(
        f"# Log\n\n## [Unreleased]\n\n## [{__version__}] - 2026-12-24\n\n- Done.\n\n## [0.0.1]\n\n- Old.\n"
    )
    assert check(f"v{__version__}") == ""
    assert (tmp_path / "build/release-notes.md").read_text().strip() == "- Done."
