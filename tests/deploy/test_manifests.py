"""`kubectl apply -k manifests/default`: all that a user types, and no right more than the operator needs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.rendering import NAMESPACE, ROOT, kustomize
from deploy.server import RefusedError, Server
from finetune_operator.api.finetunejob import parse_spec
from finetune_operator.config import read_config
from finetune_trainer.contract.version import __version__
from localcluster.waiting import wait_for

OPERATOR = ("Deployment", NAMESPACE, "finetune-operator")


def rules(kind: str, namespace: str, name: str) -> set[tuple[str, str]]:
    """(group/resource, verb) of a role."""
    return {
        (f"{group}/{resource}", verb)
        for rule in kustomize("default")[kind, namespace, name]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_s_rights_are_these_and_no_other() -> None:
    assert rules("ClusterRole", "", "finetune-operator") == {
        *(("finetune.dev/finetunejobs", verb) for verb in ("get", "list", "watch")),
        *(("finetune.dev/finetuneprofiles", verb) for verb in ("get", "list", "watch")),
        ("finetune.dev/finetunejobs/status", "patch"),
        ("finetune.dev/finetunejobs/finalizers", "update"),
        *(("batch/jobs", verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *(("/services", verb) for verb in ("create", "patch")),
        *(("/pods", verb) for verb in ("get", "list", "watch")),
        *(("events.k8s.io/events", verb) for verb in ("list", "create", "patch")),
        ("kueue.x-k8s.io/workloads", "list"),
        ("visibility.kueue.x-k8s.io/localqueues/pendingworkloads", "get"),
    }
    assert rules("ClusterRole", "", "finetune-operator-cluster-profiles") == {
        ("finetune.dev/clusterfinetuneprofiles", verb) for verb in ("get", "list", "watch")
    }
    assert rules("ClusterRole", "", "finetune-operator-token-review") == {
        ("authentication.k8s.io/tokenreviews", "create")
    }
    assert rules("Role", NAMESPACE, "finetune-operator-lease") == {
        ("coordination.k8s.io/leases", verb) for verb in ("get", "create", "update")
    }


def test_every_role_is_bound_once_to_the_operator_alone() -> None:
    bound = [
        (item["roleRef"]["kind"], item["roleRef"]["name"], item["subjects"])
        for (kind, _, _), item in kustomize("default").items()
        if kind in ("RoleBinding", "ClusterRoleBinding")
    ]
    subjects = [{"kind": "ServiceAccount", "name": "finetune-operator", "namespace": NAMESPACE}]
    assert sorted(bound, key=str) == [
        ("ClusterRole", "finetune-operator", subjects),
        ("ClusterRole", "finetune-operator-cluster-profiles", subjects),
        ("ClusterRole", "finetune-operator-token-review", subjects),
        ("Role", "finetune-operator-lease", subjects),
    ]


def test_no_role_names_secrets_or_wildcards() -> None:
    for (kind, _, _), item in kustomize("default").items():
        if kind in ("Role", "ClusterRole"):
            named = {word for rule in item["rules"] for words in rule.values() for word in words}
            assert not {"*", "secrets"} & named


def test_images_carry_the_version_of_the_code() -> None:
    [container] = kustomize("default")[OPERATOR]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"] == environment["FINETUNE_OPERATOR_IMAGE"] == f"localhost/finetune-operator:{__version__}"
    assert environment["FINETUNE_TRAINER_IMAGE"] == f"localhost/finetune-trainer:{__version__}"


def test_the_operator_understands_its_environment() -> None:
    [container] = kustomize("default")[OPERATOR]["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item.get("value", "given by Kubernetes") for item in container["env"]}
    config = read_config(environment, fallback_identity="")
    assert config.reconcile.service_accounts == {"default"}
    assert (config.identity, config.lease_namespace) == ("given by Kubernetes", "given by Kubernetes")
    assert config.http_port == container["ports"][0]["containerPort"]


def test_pods_report_where_the_service_is() -> None:
    objects = kustomize("default")
    service = objects["Service", NAMESPACE, "finetune-operator"]
    pod = objects[OPERATOR]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    [port] = [item for item in service["spec"]["ports"] if item["name"] == "http"]
    assert environment["FINETUNE_PROGRESS_URL"] == f"http://finetune-operator.{NAMESPACE}.svc:{port['port']}"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert port["targetPort"] in [item["name"] for item in container["ports"]]


def test_client_side_apply_can_hold_the_crd() -> None:
    # It keeps the object in an annotation, and annotations may have 262,144 bytes in all.
    crd = kustomize("default")["CustomResourceDefinition", "", "finetunejobs.finetune.dev"]
    assert len(json.dumps(crd)) < 200_000


@pytest.mark.parametrize(
    "path", sorted((ROOT / "manifests").rglob("kustomization.yaml")), ids=lambda path: path.parent.name
)
def test_every_kustomization_builds(path: Path) -> None:
    """The name is kustomize's own: Flux' object of the same kind must have another, or its folder cannot be built."""
    assert kustomize(str(path.parent.relative_to(ROOT / "manifests")))


SAMPLES = sorted(path.name for path in (ROOT / "manifests/samples").glob("*.yaml") if path.name != "kustomization.yaml")


def test_every_sample_is_in_the_kustomization() -> None:
    listed = yaml.safe_load((ROOT / "manifests/samples/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_parse(name: str) -> None:
    parse_spec(yaml.safe_load((ROOT / "manifests/samples" / name).read_text())["spec"])


@pytest.mark.cluster
def test_one_command_installs_everything_and_again_changes_nothing(control_plane: Server) -> None:
    control_plane.kubectl("apply", "-k", str(ROOT / "manifests/default"))
    control_plane.wait_established()
    control_plane.kubectl("apply", "-k", str(ROOT / "manifests/samples"))
    again = control_plane.kubectl("apply", "-k", str(ROOT / "manifests/default"))
    assert [line for line in again.splitlines() if not line.endswith("unchanged")] == []

    may = "auth", "can-i", f"--as=system:serviceaccount:{NAMESPACE}:finetune-operator"
    assert control_plane.kubectl(*may, "list", "finetunejobs.finetune.dev", "--all-namespaces").strip() == "yes"
    for verb in ("get", "list", "watch", "create"):
        with pytest.raises(RefusedError):
            control_plane.kubectl(*may, verb, "secrets", f"--namespace={NAMESPACE}")

    template = _deployment(control_plane)["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "name": "restricted", "namespace": NAMESPACE}
    assert control_plane.refusal(pod) == ""
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert 'violates PodSecurity "restricted' in control_plane.refusal(pod)


@pytest.mark.cluster
def test_who_may_edit_a_namespace_may_edit_its_jobs(control_plane: Server) -> None:
    control_plane.kubectl("apply", "-k", str(ROOT / "manifests/default"))
    for role in ("view", "edit"):
        binding = ("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}r", "--namespace=default")
        control_plane.kubectl(*binding)
    # The roles are aggregated by a controller, in its own time.
    wait_for(
        "the roles to be aggregated",
        lambda: may(control_plane, "viewr", "get") and may(control_plane, "editr", "delete"),
        timeout=60,
    )
    assert not may(control_plane, "viewr", "create")


def may(server: Server, user: str, verb: str) -> bool:
    """Whether a user may do this to FineTuneJobs of the namespace default."""
    try:
        return server.kubectl("auth", "can-i", f"--as={user}", "--namespace=default", verb, "ftj").strip() == "yes"
    except RefusedError:
        return False


def _deployment(server: Server) -> dict[str, Any]:
    return server.get("deployment", "finetune-operator", f"--namespace={NAMESPACE}")
