"""Installs the operator as a user does, by `kubectl apply -k manifests/default`, and changes it for a test."""

import json
import tempfile
from pathlib import Path
from typing import Any

from finetune_trainer.contract.version import __version__
from localcluster import Target
from localcluster.target import LOCAL_PREFIX

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "finetune-system"
DEPLOYMENT = "deployment/finetune-operator"
ROLLOUT_SECONDS = 120

OPERATOR_IMAGE = f"finetune-operator:{__version__}"
TRAINER_IMAGE = f"finetune-trainer:{__version__}"
SCRIPTED_IMAGE = f"finetune-scripted-trainer:{__version__}"
S3_IMAGE = f"finetune-test-s3:{__version__}"
"""The image that `Target.with_s3` deploys when no S3 server is given."""


def install(target: Target, overlay: str = "default") -> None:
    """Applies an overlay of the manifests and waits until the operator is ready."""
    if target.image_prefix == LOCAL_PREFIX:
        target.kubectl("apply", "-k", str(ROOT / "manifests" / overlay))
    else:
        _apply_with_images_of(target, overlay)
    wait_ready(target)


def uninstall(target: Target) -> None:
    """Removes everything that `install` created. This includes the CRD, and with it every FineTuneJob."""
    target.kubectl("delete", "-k", str(ROOT / "manifests/default"), "--ignore-not-found", "--wait", timeout=300)


def wait_ready(target: Target) -> None:
    """Waits until every replica of the newest version is ready."""
    target.kubectl(
        "-n", NAMESPACE, "rollout", "status", DEPLOYMENT, f"--timeout={ROLLOUT_SECONDS}s", timeout=ROLLOUT_SECONDS + 10
    )


def set_environment(target: Target, **variables: str) -> None:
    """Changes variables of the operator and waits for the new pods."""
    pairs = [f"{name}={value}" for name, value in variables.items()]
    target.kubectl("-n", NAMESPACE, "set", "env", DEPLOYMENT, *pairs)
    wait_ready(target)


def scale(target: Target, replicas: int) -> None:
    """Sets the number of replicas and waits for them."""
    target.kubectl("-n", NAMESPACE, "scale", DEPLOYMENT, f"--replicas={replicas}")
    wait_ready(target)


def operator_pods(target: Target) -> list[dict[str, Any]]:
    """Returns the operator's pods that are not being deleted."""
    pods = target.kubectl.items("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=finetune-operator")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _apply_with_images_of(target: Target, overlay: str) -> None:
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../../manifests/{overlay}"],
            "images": [
                {"name": f"{LOCAL_PREFIX}finetune-operator", "newName": target.image("finetune-operator")},
            ],
        }
        Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization))
        target.kubectl("apply", "-k", folder)
    set_environment(
        target,
        FINETUNE_OPERATOR_IMAGE=target.image(OPERATOR_IMAGE),
        FINETUNE_TRAINER_IMAGE=target.image(TRAINER_IMAGE),
    )
