"""Deploys Kueue by its own kustomization. Only the image is changed: it has the program that was built here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from localcluster import Target, binaries
from localcluster.commands import run
from localcluster.pause_image import docker_archive

PROGRAM = "manager"
MODULE = binaries.Module("kueue", {PROGRAM: "sigs.k8s.io/kueue/cmd/kueue"})
IMAGE = "localhost/kueue:test"
NAMESPACE = "kueue-system"
DEPLOYMENT = "deployment/kueue-controller-manager"
READY_SECONDS = 300


@contextmanager
def deployed(target: Target, folder: Path) -> Iterator[None]:
    """Kueue runs inside the block. With a cluster of KUBECONFIG it must run there already, and stays.

    Args:
        target: the cluster.
        folder: for the image; must exist.
    """
    if target.local is None:
        wait_ready(target)
        yield
        return
    objects = manifests(target)
    archive = folder / "kueue.tar"
    program = Path(MODULE.program(PROGRAM)).read_bytes()
    archive.write_bytes(docker_archive(IMAGE, {PROGRAM: program}, entrypoint=f"/{PROGRAM}"))
    target.load_image(archive)
    target.kubectl.apply(*objects)
    try:
        wait_ready(target)
        yield
    finally:
        # The webhooks first: without their server they would refuse every Job.
        text = yaml.safe_dump_all(sorted(objects, key=lambda item: "Webhook" not in item["kind"]))
        target.kubectl("delete", "--filename=-", "--ignore-not-found", "--wait", stdin=text, timeout=300)


def manifests(target: Target) -> list[dict[str, Any]]:
    """The objects of Kueue's default installation, with the image that was built here."""
    binaries.build(MODULE)
    listed = run(["go", "-C", str(MODULE.source), "list", "-mod=mod", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kueue"])
    text = target.kubectl("kustomize", f"{listed.strip()}/config/default")
    objects: list[dict[str, Any]] = [item for item in yaml.safe_load_all(text) if item]
    for item in objects:
        if item["kind"] == "Deployment":
            [container] = item["spec"]["template"]["spec"]["containers"]
            container.update(image=IMAGE, imagePullPolicy="Never")
    return objects


def wait_ready(target: Target) -> None:
    """Waits until Kueue's pods are ready, and its webhooks answer."""
    target.kubectl(
        "-n", NAMESPACE, "rollout", "status", DEPLOYMENT, f"--timeout={READY_SECONDS}s", timeout=READY_SECONDS + 10
    )
