"""The operator with exactly the rights and the environment that the manifests and the chart give it.

The process is the real one, outside of a pod but with its ServiceAccount's token: a right too few shows as a refusal
in its log, a variable of another name as a mistake in its configuration.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from deploy.process import kubeconfig_of, operator
from deploy.rendering import NAMESPACE, Key, Manifest, kustomize, objects_of_helm_test, render
from deploy.server import Server, job
from localcluster.waiting import wait_for

pytestmark = pytest.mark.cluster

OPERATOR = ("Deployment", NAMESPACE, "finetune-operator")
SECONDS = 60


@pytest.mark.parametrize("values", [None, {"watchNamespaces": ["default"]}], ids=["manifests", "chart, one namespace"])
def test_it_serves_a_job_without_being_refused(
    control_plane: Server, tmp_path: Path, values: dict[str, Any] | None
) -> None:
    objects = kustomize("default") if values is None else render(values)
    _install(control_plane, objects)
    with operator(control_plane, objects[OPERATOR], tmp_path) as (process, address, log):
        # Before the kubelet is asked for anything: the probes of the Deployment, where it expects them.
        [container] = objects[OPERATOR]["spec"]["template"]["spec"]["containers"]
        urls = [address + container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
        wait_for("the probes to be answered", lambda: all(map(_answers, urls)), timeout=SECONDS)
        control_plane.apply(job())
        wait_for("the preflight Job", lambda: control_plane.has("job/support-bot-preflight-1"), timeout=SECONDS)
        wait_for("the status", lambda: _observed(control_plane) == 1, timeout=SECONDS)
        wait_for("the events", lambda: _events(control_plane), timeout=SECONDS)
        assert control_plane.has("lease/finetune-operator", f"--namespace={NAMESPACE}")
        if values is not None:
            _helm_test(control_plane, values, address, tmp_path)
        process.terminate()
        assert process.wait(timeout=SECONDS) == 0
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in said if line["level"] in ("WARNING", "ERROR")] == []
    # A refusal that was only noted: the client's text of every 403 has its reason, and times and ids have digits.
    assert [line for line in said if "forbidden" in str(line).lower()] == []


def _helm_test(server: Server, values: dict[str, Any], address: str, folder: Path) -> None:
    """What `helm test` runs, with the token that it gives its pod: first without its rights, then with them."""
    objects = objects_of_helm_test(values)
    rights = [item for (kind, _, _), item in objects.items() if kind in _RIGHTS]
    [account] = [item for item in rights if item["kind"] == "ServiceAccount"]
    [pod] = [item for (kind, _, _), item in objects.items() if kind == "Pod"]
    [container] = pod["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]} | {
        "VERIFY_SECONDS": "1",
        "KUBECONFIG": str(folder / "verify"),
        "PATH": os.environ["PATH"],
    }

    def verify(url: str) -> str:
        argv = [sys.executable, *container["command"][1:]]
        done = subprocess.run(argv, env=environment | {"VERIFY_URL": url}, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.returncode == (0 if "is ready" in done.stdout else 1)
        return done.stdout

    server.apply(account)
    kubeconfig_of(server, pod["spec"]["serviceAccountName"], NAMESPACE, folder / "verify")
    problems = verify("http://127.0.0.1:1").splitlines()
    assert [problem.split(": ")[0] for problem in problems] == [
        "the operator is not ready at http://127.0.0.1:1",
        "the API server does not take a FineTuneJob in default",
    ]
    server.apply({"apiVersion": "v1", "kind": "List", "items": rights})
    assert verify(address) == "The operator is ready, and FineTuneJobs are checked in default.\n"
    assert not server.has("ftj/verify-installation")


def _install(server: Server, objects: dict[Key, Manifest]) -> None:
    _remove(server)
    server.kubectl("create", "namespace", NAMESPACE)
    crd = [item for (kind, _, _), item in objects.items() if kind == "CustomResourceDefinition"]
    server.apply({"apiVersion": "v1", "kind": "List", "items": crd})
    server.wait_established()
    # Not the Deployment: the operator runs beside it.
    rest = [item for (kind, _, _), item in objects.items() if kind in _RIGHTS]
    server.apply({"apiVersion": "v1", "kind": "List", "items": rest})


_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def _remove(server: Server) -> None:
    """What the other way of installing left, so that no right of it helps this one."""
    names = " ".join(server.kubectl("get", "clusterrolebinding,clusterrole", "--output=name").split())
    ours = [name for name in names.split() if "/finetune-operator" in name]
    if ours:
        server.kubectl("delete", *ours)
        server.kubectl("delete", "namespace", NAMESPACE, "--wait")
        server.kubectl("delete", "ftj,job,event", "--all", "--namespace=default")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


def _observed(server: Server) -> int:
    return int(server.get("ftj/support-bot")["status"]["observedGeneration"])


def _events(server: Server) -> list[Any]:
    found: list[Any] = server.get("events", "--field-selector=involvedObject.kind=FineTuneJob")["items"]
    return found
