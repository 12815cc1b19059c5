"""Overlays for kubectl give what the chart gives for the same options; one line moves images and namespace."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.rendering import NAMESPACE, ROOT, Key, Manifest, kustomize, render
from finetune_trainer.contract.version import __version__

MANIFESTS = ROOT / "manifests"
OVERLAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "namespaced": {"watchNamespaces": [NAMESPACE]},
    "dev": {"logLevel": "DEBUG", "strategy": {"type": "Recreate"}},
    "openshift": {"platform": "openshift"},
}
"""Overlays, and the chart's values for the same."""
IMAGES = {
    "localhost/finetune-operator": ("registry.example.com/team/operator", {"digest": "sha256:" + "a" * 64}),
    "localhost/finetune-trainer": ("registry.example.com:5000/trainer", {"newTag": "2"}),
}


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_chart_and_the_overlay_are_the_same(overlay: str) -> None:
    manifests = kustomize(overlay)
    del manifests["Namespace", "", NAMESPACE]  # Helm makes it itself
    assert plain(render(OVERLAYS[overlay])) == plain(manifests)


def test_every_overlay_has_its_values() -> None:
    whole = {
        path.parent.name
        for path in MANIFESTS.glob("*/kustomization.yaml")
        if any(name in ("../default", "../operator") for name in yaml.safe_load(path.read_text())["resources"])
    }
    assert whole == set(OVERLAYS)


def test_images_and_namespace_reach_everything_that_names_them(overlay: str, tmp_path: Path) -> None:
    objects = build(tmp_path, overlay)
    [deployment] = [item for key, item in objects.items() if key[0] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    operator = f"registry.example.com/team/operator@sha256:{'a' * 64}"
    assert container["image"] == environment["FINETUNE_OPERATOR_IMAGE"] == operator
    assert environment["FINETUNE_TRAINER_IMAGE"] == "registry.example.com:5000/trainer:2"
    assert environment["FINETUNE_PROGRESS_URL"] == "http://finetune-operator.ml.svc:8080"
    assert environment.get("FINETUNE_WATCH_NAMESPACES", "ml") == "ml"
    left = {key: item for key, item in objects.items() if names(item, NAMESPACE) or names(item, "localhost/")}
    assert left == {}, "something still has the old namespace or registry"


def build(folder: Path, overlay: str) -> dict[Key, Manifest]:
    """An overlay as docs/install.md has it, with another namespace and other images."""
    copy_of = folder / "manifests"
    copy_of.symlink_to(MANIFESTS)
    references = f"../manifests/{overlay}/references" if overlay == "namespaced" else "../manifests/references"
    kustomization = {
        "resources": [f"../manifests/{overlay}"],
        "namespace": "ml",
        "images": [{"name": name, "newName": new, **other} for name, (new, other) in IMAGES.items()],
        "transformers": [references],
    }
    (folder / "overlay").mkdir()
    (folder / "overlay/kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return kustomize(folder / "overlay")


def names(value: Any, text: str) -> bool:
    """Whether a text is in a value or in one of its parts."""
    if isinstance(value, dict):
        return any(names(part, text) for part in value.values())
    if isinstance(value, list):
        return any(names(part, text) for part in value)
    return isinstance(value, str) and text in value


def test_the_overlay_in_the_documentation_moves_everything(tmp_path: Path) -> None:
    text = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    [block] = [
        part for part in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "namespace:" in part
    ]
    (tmp_path / "manifests").symlink_to(MANIFESTS)
    (tmp_path / "build/overlay").mkdir(parents=True)
    (tmp_path / "build/overlay/kustomization.yaml").write_text(block)
    objects = kustomize(tmp_path / "build/overlay")
    assert ("Deployment", "training", "finetune-operator") in objects
    assert not [key for key, item in objects.items() if names(item, NAMESPACE) or names(item, "localhost/")]


def test_images_carry_the_version_of_the_code() -> None:
    images = yaml.safe_load((MANIFESTS / "operator/images.yaml").read_text())
    assert [item["image"] for item in images["spec"]["containers"]] == [f"localhost/finetune-trainer:{__version__}"]


def test_what_only_carries_an_image_is_not_installed() -> None:
    assert not [key for key in kustomize("default") if key[0] == "Images"]


def plain(objects: dict[Key, Manifest]) -> dict[Key, Manifest]:
    """Without what Helm adds to every object, and with variables in one order: a patched list has another."""
    plain = copy.deepcopy(objects)
    own = ("helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
    for (kind, *_), item in plain.items():
        metadata = item["metadata"]
        metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name not in own}
        annotations = metadata.pop("annotations", {})
        annotations.pop("helm.sh/resource-policy", None)
        if annotations:
            metadata["annotations"] = annotations
        if kind == "Deployment":
            for container in item["spec"]["template"]["spec"]["containers"]:
                container["env"].sort(key=lambda variable: variable["name"])
    return plain
