"""Manifests in one file each, for `kubectl apply -f`."""

import subprocess
import sysconfig
import tempfile
from pathlib import Path

import yaml

FILES = {"install.yaml": "default", "install-namespaced.yaml": "namespaced", "install-openshift.yaml": "openshift"}
"""Files, and their folders below manifests/."""


def install(root: Path, folder: str, *, registry: str, version: str) -> bytes:
    """Returns an overlay's objects, with the images of a registry.

    Raises:
        subprocess.CalledProcessError: kustomize refuses the folder.
    """
    names = ("finetune-operator", "finetune-trainer")
    prefix = f"{registry.rstrip('/')}/" if registry else "localhost/"
    overlay = {
        "resources": [f"../manifests/{folder}"],
        "images": [{"name": f"localhost/{name}", "newName": f"{prefix}{name}", "newTag": version} for name in names],
        "transformers": ["../manifests/references"],
    }
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "manifests").symlink_to(root / "manifests")
        Path(scratch, "overlay").mkdir()
        Path(scratch, "overlay/kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
        return subprocess.run([kubectl, "kustomize", f"{scratch}/overlay"], capture_output=True, check=True).stdout
