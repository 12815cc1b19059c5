"""The objects that a user installs: those of `kubectl apply -k` and those of the chart."""

import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace (empty for the cluster's own), name."""

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/finetune-operator"
NAMESPACE = "finetune-system"
RELEASE = "finetune-operator"


def kustomize(folder: str) -> dict[Key, Manifest]:
    """Returns the objects of a kustomization below manifests/."""
    argv = [str(Path(sysconfig.get_path("scripts")) / "kubectl"), "kustomize", str(ROOT / "manifests" / folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return _by_key(yaml.safe_load_all(done.stdout))


def render(
    values: Mapping[str, Any] | None = None, *, name: str = RELEASE, namespace: str = NAMESPACE
) -> dict[Key, Manifest]:
    """Returns the chart's objects."""
    return _by_key(
        document
        for path, text in render_text(values, name=name, namespace=namespace).items()
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
    )


def render_text(
    values: Mapping[str, Any] | None = None, *, name: str = RELEASE, namespace: str = NAMESPACE
) -> dict[str, str]:
    """Returns the rendered templates of the chart.

    Raises:
        helm_python.HelmError: the values are refused.
    """
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(dict(values or {}))
        rendered: dict[str, str] = chart.render(dict(values or {}), name=name, namespace=namespace)
        return rendered


def _by_key(documents: Iterable[Manifest | None]) -> dict[Key, Manifest]:
    found: dict[Key, Manifest] = {}
    for document in documents:
        if document is not None:
            metadata = document["metadata"]
            key = (document["kind"], metadata.get("namespace", ""), metadata["name"])
            assert key not in found, f"{key} twice"
            found[key] = document
    return found
