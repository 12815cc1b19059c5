"""What a thief of the operator's token may create: a table of attacks on a real API server, each refused.

The policy is off for everybody else, and lets through what the operator itself makes.
"""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.rendering import NAMESPACE, kustomize
from deploy.server import RefusedError, Server, job
from finetune_operator.api.finetunejob import FineTuneJob, parse_job
from finetune_operator.config import read_config
from finetune_operator.reconcile.manifests import child_job, headless_service
from localcluster.waiting import wait_for

pytestmark = pytest.mark.cluster

Manifest = dict[str, Any]
Attack = Callable[[Manifest], object]

OPERATOR = ("Deployment", NAMESPACE, "finetune-operator")
USER = f"--as=system:serviceaccount:{NAMESPACE}:finetune-operator"
POLICY = "finetune-operator-children"
SERVICES = "finetune-operator-services"


def pod(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: Manifest) -> Manifest:
    first: Manifest = pod(manifest)["containers"][0]
    return first


HOST_PATH = {"name": "host", "hostPath": {"path": "/"}}
API_TOKEN = {"name": "api", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
CONFIG_MAP = {"name": "other", "configMap": {"name": "kube-root-ca.crt"}}
UNCONFINED = {"type": "Unconfined"}
NO_APPARMOR = {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}
OF_SECRET = {"secretKeyRef": {"name": "keys", "key": "key"}}

ATTACKS: dict[str, Attack] = {
    "privileged": lambda it: container(it)["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
    "escalation": lambda it: container(it)["securityContext"].update(allowPrivilegeEscalation=True),
    "no security context": lambda it: container(it).pop("securityContext"),
    "more capabilities": lambda it: container(it)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "no dropped capabilities": lambda it: container(it)["securityContext"].pop("capabilities"),
    "root": lambda it: pod(it)["securityContext"].update(runAsNonRoot=False, runAsUser=0),
    "no seccomp": lambda it: pod(it)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "host network": lambda it: pod(it).update(hostNetwork=True),
    "host PID": lambda it: pod(it).update(hostPID=True),
    "host IPC": lambda it: pod(it).update(hostIPC=True),
    "host path": lambda it: pod(it)["volumes"].append(HOST_PATH),
    "API token by projection": lambda it: pod(it)["volumes"].append(API_TOKEN),
    "API token by automount": lambda it: pod(it).update(automountServiceAccountToken=True),
    "config map": lambda it: pod(it)["volumes"].append(CONFIG_MAP),
    "another account": lambda it: pod(it).update(serviceAccountName="builder"),
    "another image": lambda it: container(it).update(image="evil:1"),
    "second container": lambda it: pod(it)["containers"].append({**container(it), "name": "second", "image": "evil:1"}),
    "init container": lambda it: pod(it).update(initContainers=[{"name": "first", "image": "evil:1"}]),
    "root in the container": lambda it: container(it)["securityContext"].update(runAsNonRoot=False, runAsUser=0),
    "root by its number": lambda it: pod(it)["securityContext"].update(runAsUser=0),
    "no seccomp in the container": lambda it: container(it)["securityContext"].update(seccompProfile=UNCONFINED),
    "no AppArmor": lambda it: pod(it)["securityContext"].update(appArmorProfile=UNCONFINED),
    "no AppArmor in the container": lambda it: container(it)["securityContext"].update(appArmorProfile=UNCONFINED),
    "no AppArmor by an annotation": lambda it: it["spec"]["template"]["metadata"]["annotations"].update(NO_APPARMOR),
    "a SELinux type": lambda it: container(it)["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
    "a sysctl": lambda it: pod(it)["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "a port of the host": lambda it: container(it).update(ports=[{"containerPort": 80, "hostPort": 80}]),
    "a node of its choice": lambda it: pod(it).update(nodeName="control-plane"),
    "a command": lambda it: container(it).update(command=["sh", "-c", "evil"]),
    "arguments": lambda it: container(it).update(args=["evil"]),
    "a hook": lambda it: container(it).update(lifecycle={"postStart": {"exec": {"command": ["evil"]}}}),
    "a probe": lambda it: container(it).update(livenessProbe={"exec": {"command": ["evil"]}}),
    "variables of a ConfigMap": lambda it: container(it).update(envFrom=[{"configMapRef": {"name": "other"}}]),
    "a variable of a Secret": lambda it: container(it)["env"].append({"name": "A", "valueFrom": OF_SECRET}),
    "no owner": lambda it: it["metadata"].pop("ownerReferences"),
    "owner of another kind": lambda it: it["metadata"]["ownerReferences"][0].update(apiVersion="v1", kind="Pod"),
    "owner that does not control": lambda it: it["metadata"]["ownerReferences"][0].update(controller=False),
    "another owner than the label says": lambda it: it["metadata"]["ownerReferences"][0].update(uid="other"),
    "other labels": lambda it: it["metadata"].update(labels={"app": "other"}),
}

SERVICE_ATTACKS: dict[str, Attack] = {
    "an address": lambda it: it["spec"].pop("clusterIP"),
    "an external address": lambda it: it["spec"].update(externalIPs=["192.0.2.1"]),
    "another name": lambda it: it["spec"].update(type="ExternalName", externalName="evil.example.com", clusterIP=""),
    "a port of every node": lambda it: it["spec"].update(type="NodePort", clusterIP=""),
    "no selector": lambda it: it["spec"].pop("selector"),
    "the pods of others": lambda it: it["spec"].update(selector={"app": "other"}),
    "the pods of another job": lambda it: it["spec"]["selector"].update({"finetune.dev/job-uid": "other"}),
    "no owner": lambda it: it["metadata"].pop("ownerReferences"),
    "another owner than the label says": lambda it: it["metadata"]["ownerReferences"][0].update(uid="other"),
    "no labels": lambda it: it["metadata"].pop("labels"),
}


@pytest.fixture(scope="module")
def policed(control_plane: Server) -> Server:
    """The API server with the operator's manifests; no pod of the Deployment ever runs."""
    objects = [item for key, item in kustomize("default").items() if key[0] != "CustomResourceDefinition"]
    control_plane.kubectl("create", "namespace", NAMESPACE)
    control_plane.apply({"apiVersion": "v1", "kind": "List", "items": objects})
    foreign = [{**item, "metadata": {"name": "foreign", "namespace": "default"}} for item in (_foreign(), FOREIGN)]

    def in_force() -> bool:
        """A policy counts some time after it was created."""
        refused = [_refusal(control_plane, item) for item in foreign]
        return POLICY in refused[0] and SERVICES in refused[1]

    wait_for("the policies to be in force", in_force, timeout=60)
    control_plane.apply({"apiVersion": "v1", "kind": "List", "items": foreign})
    return control_plane


def _refusal(server: Server, manifest: Manifest) -> str:
    """What the server says when the operator's account creates it; empty when it may."""
    try:
        server.kubectl("create", "--dry-run=server", USER, "-f", "-", stdin=json.dumps(manifest))
    except RefusedError as error:
        return str(error)
    return ""


FOREIGN = {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}


def _foreign() -> Manifest:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "image"}]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template}}


def made(role: str = "train", overlay: str = "default", **spec: Any) -> Manifest:
    """The Job that the operator makes, with the environment of its Deployment."""
    [operator] = kustomize(overlay)[OPERATOR]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value", "") for item in operator["env"]}
    config = read_config(environment, fallback_identity="me")
    manifest = child_job(stored(**spec), config.reconcile, role, 1)
    return copy.deepcopy(manifest)


def stored(**spec: Any) -> FineTuneJob:
    """A FineTuneJob as the operator reads it."""
    raw = job(spec)
    now = datetime.now(UTC).isoformat()
    raw["metadata"].update(uid="3f2a9c0d-0000-4000-8000-000000000000", creationTimestamp=now)
    return parse_job(raw)


@pytest.mark.parametrize(
    ("role", "spec"),
    [
        ("train", {}),
        ("preflight", {}),
        ("train", {"storage.secretRef": {"name": "keys"}, "model.tokenSecretRef": {"name": "hub"}}),
        ("train", {"model.uri": "pvc://models/llama", "resources.nodes": 2, "storage.secretRef": {"name": "keys"}}),
    ],
)
def test_what_the_operator_makes_is_let_through(policed: Server, role: str, spec: dict[str, Any]) -> None:
    assert _refusal(policed, made(role, **spec)) == ""


def test_the_service_that_the_operator_makes_is_let_through(policed: Server) -> None:
    service = headless_service(stored(**{"resources.nodes": 2}))
    apply = "apply", "--server-side", "--field-manager=finetune-operator", USER, "-f", "-"
    for _ in range(2):  # it is applied again with every attempt
        policed.kubectl(*apply, stdin=json.dumps(service))


@pytest.mark.parametrize("name", SERVICE_ATTACKS)
def test_an_attack_by_a_service_is_refused(policed: Server, name: str) -> None:
    service = copy.deepcopy(headless_service(stored(**{"resources.nodes": 2})))
    service["metadata"]["name"] = "attack"
    SERVICE_ATTACKS[name](service)
    assert SERVICES in _refusal(policed, service)


@pytest.mark.parametrize("role", ["train", "preflight"])
def test_pods_whose_user_the_platform_chooses_are_let_through(policed: Server, role: str) -> None:
    manifest = made(role, "openshift")
    assert "runAsUser" not in pod(manifest)["securityContext"]
    policed.kubectl("create", "--dry-run=server", USER, "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_with_the_operators_token_is_refused(policed: Server, name: str) -> None:
    manifest = made()
    ATTACKS[name](manifest)
    with pytest.raises(RefusedError, match=POLICY):
        policed.kubectl("create", "--dry-run=server", USER, "-f", "-", stdin=json.dumps(manifest))
    policed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))  # the administrator may


def test_a_job_that_waits_is_not_changed_into_one_without_apparmor(policed: Server) -> None:
    """Of a suspended Job the pod's annotations can be changed."""
    waiting = made()
    waiting["metadata"].update(name="waiting", namespace="default")
    owners = waiting["metadata"].pop("ownerReferences")  # it does not exist, so the Job would be collected
    waiting["spec"]["suspend"] = True
    policed.apply(waiting)

    def patched(**template: Any) -> str:
        patch = json.dumps({"metadata": {"ownerReferences": owners}, "spec": {"template": {"metadata": template}}})
        command = ("patch", "job/waiting", "--type=merge", f"--patch={patch}", "--namespace=default")
        try:
            policed.kubectl(*command, "--dry-run=server", USER)
        except RefusedError as error:
            return str(error)
        return ""

    assert patched() == ""
    assert "AppArmor" in patched(annotations=NO_APPARMOR)


@pytest.mark.parametrize("verb", [["delete", "job/foreign"], ["label", "job/foreign", "a=b"]], ids=["delete", "change"])
def test_jobs_of_others_are_not_touched(policed: Server, verb: list[str]) -> None:
    with pytest.raises(RefusedError, match=POLICY):
        policed.kubectl(*verb, "--dry-run=server", USER, "--namespace=default")


def test_services_of_others_are_not_touched(policed: Server) -> None:
    mine = headless_service(stored(**{"resources.nodes": 2}))
    labels = mine["metadata"] | {"name": "foreign"}
    thief = FOREIGN | {"metadata": labels, "spec": {"selector": mine["spec"]["selector"], "ports": [{"port": 80}]}}
    with pytest.raises(RefusedError, match=SERVICES):
        policed.kubectl("apply", "--server-side", "--force-conflicts", USER, "-f", "-", stdin=json.dumps(thief))
    assert policed.get("service/foreign", "--namespace=default")["spec"]["selector"] == {"app": "shop"}
