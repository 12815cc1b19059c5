"""The control plane for tests: kubectl, the operator's identity and process, and writes that a kubelet would make."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from finetune_operator.kube.api import PODS, Kube
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import Outcome, OutputRecord, Termination
from localcluster import LocalCluster, Target
from localcluster.audit import AuditLog

SYSTEM = "finetune-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:finetune-operator"
"""The user that the API server knows the operator as."""

REPOSITORY = Path(__file__).resolve().parents[2]

OUTPUT = OutputRecord(
    uri="s3://models/adapters/job/0/1",
    manifest_uri="s3://models/adapters/job/0/manifest.json",
    digest="sha256:00",
    size_bytes=1,
    base_model="org/model",
    rank=16,
)


T = TypeVar("T")


class Plane:
    """A running control plane, or a cluster that was given.

    Attributes:
        kubeconfig: the administrator's.
        job_defaults: sections that every FineTuneJob needs there.
    """

    def __init__(self, cluster: LocalCluster | Target) -> None:
        self._cluster = cluster
        self.kubeconfig = cluster.kubeconfig
        self.job_defaults: dict[str, Any] = {}
        self._operator_token = ""
        self._operator_kubeconfig: Path | None = None

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Runs kubectl as administrator. Returns its output."""
        result = self._run(*arguments, stdin=stdin)
        assert result.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {result.stderr}"
        return result.stdout

    def succeeds(self, *arguments: str | Path, stdin: str | None = None) -> bool:
        """Whether kubectl, as administrator, ends without an error."""
        return self._run(*arguments, stdin=stdin).returncode == 0

    def _run(self, *arguments: str | Path, stdin: str | None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self._cluster.kubectl.program, "--kubeconfig", self.kubeconfig, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def may(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        """Returns whether a user has a right in a namespace. `user` is kubectl's option, `--as=NAME`."""
        command = [self._cluster.kubectl.program, "--kubeconfig", str(self.kubeconfig), "auth", "can-i", "--quiet"]
        command += [verb, resource, "-n", namespace, user]
        return subprocess.run(command, check=False, timeout=120).returncode == 0

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Returns one object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def items(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """Returns all objects of a kind."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json"))["items"]
        return found

    def operator_token(self) -> str:
        """Returns a token of the operator's service account."""
        if not self._operator_token:
            command = ("create", "token", "finetune-operator", "-n", SYSTEM, "--duration=24h")
            self._operator_token = self.kubectl(*command).strip()
        return self._operator_token

    def operator_kubeconfig(self) -> Path:
        """Returns a kubeconfig with that token."""
        if self._operator_kubeconfig is None:
            token = self.operator_token()
            config = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))
            config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
            path = self.kubeconfig.with_name("operator-kubeconfig")
            path.touch(mode=0o600)
            path.write_text(json.dumps(config))
            self._operator_kubeconfig = path
        return self._operator_kubeconfig

    def await_crd(self) -> None:
        """Waits until the API server serves FineTuneJobs and profiles."""
        for plural in ("finetunejobs", "finetuneprofiles", "clusterfinetuneprofiles"):
            self._cluster.kubectl.wait_established(f"{plural}.finetune.dev")

    def grant(self) -> None:
        """Gives the operator the rights of the shipped manifests."""
        self.kubectl("apply", "--server-side", "-k", REPOSITORY / "manifests/rbac")

    @contextmanager
    def without_rules(self) -> Iterator[None]:
        """Removes the CRD's rules over several fields inside the block, as in an earlier version."""
        rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"
        patch = json.dumps([{"op": "remove", "path": rules}])
        self.kubectl("patch", "crd", "finetunejobs.finetune.dev", "--type=json", f"--patch={patch}")
        try:
            yield
        finally:
            crd = REPOSITORY / "manifests/crd/finetunejobs.yaml"
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", crd)

    @contextmanager
    def newer_crd(self) -> Iterator[None]:
        """Adds a section with a default to the CRD inside the block, as in a later version."""
        path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later"
        section = {"type": "object", "default": {}, "properties": {"field": {"type": "integer", "default": 1}}}
        patch = json.dumps([{"op": "add", "path": path, "value": section}])
        self.kubectl("patch", "crd", "finetunejobs.finetune.dev", "--type=json", f"--patch={patch}")
        try:
            yield
        finally:
            patch = json.dumps([{"op": "remove", "path": path}])
            self.kubectl("patch", "crd", "finetunejobs.finetune.dev", "--type=json", f"--patch={patch}")

    @contextmanager
    def newer_profiles(self) -> Iterator[None]:
        """Adds a section to the CRD of FineTuneProfiles inside the block, as in a later version."""
        path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/later"
        section = {"type": "object", "properties": {"field": {"type": "integer"}}}
        self._patch_profiles([{"op": "add", "path": path, "value": section}])
        try:
            yield
        finally:
            self._patch_profiles([{"op": "remove", "path": path}])

    def _patch_profiles(self, patch: list[dict[str, Any]]) -> None:
        crd = "finetuneprofiles.finetune.dev"
        self.kubectl("patch", "crd", crd, "--type=json", f"--patch={json.dumps(patch)}")
        served = patch[0]["op"] == "add"
        trial = {
            "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneProfile",
            "metadata": {"name": "trial", "namespace": "default"}, "spec": {"later": {"field": 1}},
        }  # fmt: skip
        deadline = time.monotonic() + 60
        while self.succeeds("create", "--dry-run=server", "-f", "-", stdin=json.dumps(trial)) is not served:
            assert time.monotonic() < deadline, "the changed CRD is not served"
            time.sleep(0.2)

    @contextmanager
    def without_profiles(self) -> Iterator[None]:
        """Removes the CRDs of profiles inside the block, as in an earlier version."""
        self.kubectl("delete", "crd", "finetuneprofiles.finetune.dev", "clusterfinetuneprofiles.finetune.dev")
        try:
            yield
        finally:
            self.kubectl("apply", "--server-side", "-k", REPOSITORY / "manifests/crd")
            self.await_crd()

    @contextmanager
    def may_only_list(self, namespace: str) -> Iterator[None]:
        """Takes all rights but get and list from the operator, until `grant` or the end of the block."""
        role = f"reader-{namespace}"
        kinds = "--resource=finetunejobs.finetune.dev,finetuneprofiles.finetune.dev,jobs.batch,pods"
        self.kubectl("create", "clusterrole", role, "--verb=get,list", kinds)
        account = f"--serviceaccount={SYSTEM}:finetune-operator"
        self.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", account)
        self.kubectl("delete", "clusterrolebinding", "finetune-operator")
        try:
            yield
        finally:
            self.grant()
            self.kubectl("delete", "clusterrolebinding,clusterrole", role)

    @contextmanager
    def serves_only(self, namespace: str) -> Iterator[None]:
        """Gives the operator its rights in one namespace only inside the block, as the chart does."""
        account = f"--serviceaccount={SYSTEM}:finetune-operator"
        binding = f"serves-{namespace}"
        self.kubectl("create", "rolebinding", binding, "--clusterrole=finetune-operator", account, "-n", namespace)
        self.kubectl("delete", "clusterrolebinding", "finetune-operator")
        try:
            yield
        finally:
            self.grant()

    def mark(self) -> int:
        """Returns a mark in the audit log."""
        return self._audit.mark()

    def operator_writes(self, since: int, namespace: str) -> list[str]:
        """Returns the operator's writes to a namespace after a mark, without events and leases."""
        return [
            f"{write.verb} {write.resource} {write.name}"
            for write in self._audit.writes(since, namespace=namespace)
            if write.user == ACCOUNT
        ]

    @property
    def _audit(self) -> AuditLog:
        assert isinstance(self._cluster, LocalCluster), "a cluster that was given has no audit log to read"
        return self._cluster.audit


@dataclass
class Process:
    """A running operator."""

    popen: "subprocess.Popen[str]"
    log: Path
    port: int

    @property
    def url(self) -> str:
        """URL of the operator's HTTP server."""
        return f"http://127.0.0.1:{self.port}"

    def terminate(self, within: float = 20.0) -> int:
        """Sends SIGTERM. Returns the exit code. Fails when the process does not end in time."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=within)

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def operator(plane: Plane, folder: Path, namespace: str, **environment: str) -> Iterator[Process]:
    """Starts the operator as a process with the rights of its service account. It serves one namespace.

    Its Lease is in this namespace too.
    """
    port = free_port()
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("operator", "trainer"))
    log = folder / f"operator-{port}.log"
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": path,
        "KUBECONFIG": str(plane.operator_kubeconfig()),
        "FINETUNE_OPERATOR_IMAGE": "localhost/operator:1",
        "FINETUNE_TRAINER_IMAGE": "localhost/trainer:1",
        "FINETUNE_PROGRESS_URL": f"http://127.0.0.1:{port}",
        "FINETUNE_WATCH_NAMESPACES": namespace,
        "FINETUNE_LEASE_NAMESPACE": SYSTEM,
        "FINETUNE_LEASE_NAME": f"operator-{namespace}",
        "FINETUNE_HTTP_HOST": "127.0.0.1",
        "FINETUNE_HTTP_PORT": str(port),
        "FINETUNE_RESYNC_SECONDS": "10",
        "POD_NAME": f"operator-{port}",
        **environment,
    }
    with log.open("w") as stream:
        popen = subprocess.Popen([sys.executable, "-m", "finetune_operator"], env=variables, stderr=stream, text=True)
    try:
        yield Process(popen, log, port)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait()


def free_port() -> int:
    """A TCP port of loopback that nobody listens on. No outgoing connection takes it meanwhile: theirs are higher."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def eventually(what: str, look: Callable[[], T | None], timeout: float = 90.0) -> T:  # noqa: ASYNC109
    """Calls a function until it returns a true value. Returns the value. Fails with `what` after the time limit."""

    async def awaited() -> T | None:
        return look()

    return await eventually_seen(what, awaited, timeout)


async def eventually_seen(
    what: str,
    look: Callable[[], Awaitable[T | None]],
    timeout: float = 90.0,  # noqa: ASYNC109
) -> T:
    """Like `eventually`, for an asynchronous function."""
    deadline = time.monotonic() + timeout
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not seen in {timeout:.0f} s: {what}"
        await asyncio.sleep(0.1)
    return found


def a_finetunejob(namespace: str, name: str = "job", **spec: Any) -> dict[str, Any]:
    """Returns a FineTuneJob. Keyword arguments are sections of its spec. Preflight is off unless they turn it on."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "model": {"uri": "hf://org/model"},
            "dataset": {"uri": "s3://data/train.jsonl"},
            "output": {"uri": "s3://models/adapters"},
            "preflight": {"enabled": False},
            **spec,
        },
    }


async def run_pod(kube: Kube, pod: dict[str, Any]) -> None:
    """Writes the pod status that a kubelet writes when the container starts."""
    await _set_state(kube, pod, "Running", {"running": {"startedAt": _now()}})


async def end_pod(
    kube: Kube, pod: dict[str, Any], *, exit_code: int = 0, termination: str | None = None, sidecar: bool = False
) -> None:
    """Writes the pod status that a kubelet writes when the container ends, by default after a success.

    With a sidecar, which goes on, the pod goes on too.
    """
    if termination is None:
        message = Termination(
            outcome=Outcome.SUCCEEDED,
            fingerprint="0" * 12,
            output=OUTPUT,
            progress=Progress(stage=Stage.FINISHED, step=10, total_steps=10, loss=1.25),
        )
        termination = message.to_json()
    terminated = {
        "exitCode": exit_code,
        "reason": "Error" if exit_code else "Completed",
        "message": termination,
        "startedAt": _now(),
        "finishedAt": _now(),
    }
    phase = "Running" if sidecar else "Failed" if exit_code else "Succeeded"
    await _set_state(kube, pod, phase, {"terminated": terminated}, sidecar=sidecar)


async def _set_state(
    kube: Kube, pod: dict[str, Any], phase: str, state: dict[str, Any], *, sidecar: bool = False
) -> None:
    container = {
        "name": pod["spec"]["containers"][0]["name"],
        "image": "image",
        "imageID": "",
        "ready": phase == "Running",
        "restartCount": 0,
        "state": state,
    }
    containers = [container]
    if sidecar:
        containers.insert(0, {**container, "name": "a-sidecar", "state": {"running": {"startedAt": _now()}}})
    metadata = pod["metadata"]
    await kube.merge(
        PODS,
        metadata["namespace"],
        metadata["name"],
        {"status": {"phase": phase, "startTime": _now(), "containerStatuses": containers}},
        field_manager="kubelet",
        subresource="status",
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
