"""The chart as it is published: with the place of the repository, the images' registry and the changes in it."""

import re
from pathlib import Path
from typing import Any

import yaml
from scripts.release_artifacts.archive import tgz


def package(chart: Path, changelog: str, *, source: str, registry: str, modified: int) -> tuple[str, bytes]:
    """Returns the file name and the bytes of the packaged chart.

    Args:
        chart: the chart's folder.
        changelog: text of CHANGELOG.md.
        source: URL of the repository; empty when it is not known.
        registry: where the images are; it becomes the default of images.registry.
        modified: seconds since 1970.
    """
    described: dict[str, Any] = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    name, version = described["name"], described["version"]
    if source:
        described |= {"home": source, "sources": [source]}
    described["annotations"] |= {
        "artifacthub.io/changes": yaml.safe_dump(changes(changelog, version), sort_keys=False, width=1000),
        "artifacthub.io/images": yaml.safe_dump(images(chart, registry, described["appVersion"]), sort_keys=False),
    }
    files = {
        f"{name}/{path.relative_to(chart)}": path.read_bytes()
        for path in chart.rglob("*")
        if path.is_file() and path.name != ".helmignore"
    }
    files[f"{name}/Chart.yaml"] = yaml.safe_dump(described, sort_keys=False, width=1000).encode()
    files[f"{name}/values.yaml"] = with_registry(files[f"{name}/values.yaml"].decode(), registry).encode()
    return f"{name}-{version}.tgz", tgz(files, modified=modified)


def with_registry(values: str, registry: str) -> str:
    """Returns values.yaml with another default of images.registry."""
    found, count = re.subn(r'^(  registry:) ""$', rf'\1 "{registry}"', values, count=1, flags=re.MULTILINE)
    assert count == 1, "values.yaml has no images.registry"
    return found


def images(chart: Path, registry: str, version: str) -> list[dict[str, str]]:
    """Returns the images of the release, as Artifact Hub lists them."""
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))["images"]
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    names = [values[part]["repository"] for part in ("operator", "trainer")]
    return [{"name": name, "image": f"{prefix}{name}:{version}"} for name in names]


_KINDS = {"Added": "added", "Changed": "changed", "Fixed": "fixed", "Removed": "removed", "Security": "security"}


def changes(changelog: str, version: str) -> list[dict[str, str]]:
    """Returns the changes of a version, or of `[Unreleased]` where it has no heading yet."""
    sections = re.split(r"^## \[(.+?)\].*$", changelog, flags=re.MULTILINE)
    texts = dict(zip(sections[1::2], sections[2::2], strict=True))
    parts = (part.partition("\n") for part in texts.get(version, texts["Unreleased"]).split("\n### ")[1:])
    return [
        {"kind": _KINDS[kind.strip()], "description": " ".join(item.split())}
        for kind, _, text in parts
        for item in re.findall(r"^- (.+(?:\n  .+)*)", text, re.MULTILINE)
    ]
