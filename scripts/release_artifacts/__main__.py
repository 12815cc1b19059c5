"""Writes what a release publishes, but for the images: wheel, sdist, chart, manifests, SBOMs, licences, checksums.

All of it depends on the checkout alone. It is made twice and compared.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.build_images.catalog import ROOT, SHIPPED, version
from scripts.release_artifacts import chart, manifests, packages

CHART = ROOT / "helm/finetune-operator"


def commit_time() -> int:
    """Returns SOURCE_DATE_EPOCH, or the time of the checked out commit, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


def documents(*, source: str, registry: str, modified: int) -> dict[str, bytes]:
    """Returns chart, manifests, bills of materials and licences, by file name."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    name, packed = chart.package(CHART, changelog, source=source, registry=registry, modified=modified)
    found = {name: packed}
    for file, folder in manifests.FILES.items():
        found[file] = manifests.install(ROOT, folder, registry=registry, version=version())
    for image in SHIPPED:
        requirements = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in image.requirements)
        found[f"{image.name}.cdx.json"] = packages.cyclonedx(image.name, version(), requirements, modified=modified)
        found[f"{image.name}.licenses.txt"] = packages.notices(image.name, requirements)
    return found


def python_packages(*, modified: int) -> dict[str, bytes]:
    """Returns wheel and sdist, built with the pinned build backend.

    Raises:
        subprocess.CalledProcessError: the build fails.
    """
    uv = subprocess.run([ROOT / "scripts/uv"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        argv = [uv, "build", "--quiet", "--out-dir", folder, "--require-hashes"]
        argv += ["--build-constraints", str(ROOT / "images/build-backend.txt"), str(ROOT)]
        subprocess.run(argv, env={**os.environ, "SOURCE_DATE_EPOCH": str(modified)}, check=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


def artifacts(*, source: str, registry: str, modified: int, python: bool) -> dict[str, bytes]:
    """Returns everything, with the checksums of all."""
    found = documents(source=source, registry=registry, modified=modified)
    if python:
        found |= python_packages(modified=modified)
    sums = (f"{hashlib.sha256(found[name]).hexdigest()}  {name}\n" for name in sorted(found))
    return {**found, "sha256sums.txt": "".join(sums).encode()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the files. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/release-artifacts", description=__doc__)
    parser.add_argument("--registry", default="", help="where the images are, such as registry.example.com/team")
    parser.add_argument("--source", default="", help="URL of the repository")
    parser.add_argument("--output", type=Path, default=ROOT / "build/release")
    parser.add_argument("--no-python", action="store_true", help="no wheel and no sdist; their build asks an index")
    options = parser.parse_args(arguments)
    modified = commit_time()
    first, second = (
        artifacts(source=options.source, registry=options.registry, modified=modified, python=not options.no_python)
        for _ in range(2)
    )
    different = sorted(name for name in first if first[name] != second.get(name))
    if different or set(first) != set(second):
        print(f"release-artifacts: a second build has other bytes: {', '.join(different)}", file=sys.stderr)
        return 1
    shutil.rmtree(options.output, ignore_errors=True)
    options.output.mkdir(parents=True)
    for name, content in sorted(first.items()):
        (options.output / name).write_bytes(content)
        print(f"{len(content):>12,}  {options.output / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
