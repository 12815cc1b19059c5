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


def kustomize(folder: str | Path) -> dict[Key, Manifest]:
    """Returns the objects of a kustomization: a folder, by default below manifests/."""
    argv = [str(Path(sysconfig.get_path("scripts")) / "kubectl"), "kustomize", str(ROOT / "manifests" / folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return _by_key(_load(done.stdout))


def render(
    values: Mapping[str, Any] | None = None, *, name: str = RELEASE, namespace: str = NAMESPACE
) -> dict[Key, Manifest]:
    """Returns the chart's objects, without those of `helm test`."""
    documents = _documents(values, name=name, namespace=namespace)
    return _by_key(document for document in documents if not _is_test(document))


def objects_of_helm_test(values: Mapping[str, Any] | None = None) -> dict[Key, Manifest]:
    """Returns the objects that only `helm test` makes."""
    documents = _documents(values, name=RELEASE, namespace=NAMESPACE)
    return _by_key(document for document in documents if _is_test(document))


def _documents(values: Mapping[str, Any] | None, *, name: str, namespace: str) -> list[Manifest]:
    texts = render_text(values, name=name, namespace=namespace)
    found = [item for path, text in texts.items() if path.endswith(".yaml") for item in _load(text)]
    return [item for item in found if item is not None]


def _load(text: str) -> list[Manifest | None]:
    # libyaml: in Python alone the CRD takes half a second.
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))


def _is_test(document: Manifest) -> bool:
    return (document["metadata"].get("annotations") or {}).get("helm.sh/hook") == "test"


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
