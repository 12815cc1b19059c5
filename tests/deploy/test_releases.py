"""Releases of the chart beside and after each other: on a real API server, with real Helm and real operators."""

import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from helm_python import _native

from deploy.process import operator
from deploy.rendering import CHART, NAMESPACE, ROOT, Manifest, kustomize
from deploy.server import RefusedError, Server, job
from localcluster.waiting import wait_for

pytestmark = pytest.mark.cluster

CRD = "crd/finetunejobs.finetune.dev"
CRDS = (CRD, "crd/finetuneprofiles.finetune.dev", "crd/clusterfinetuneprofiles.finetune.dev")
SECONDS = 60
TEAMS = {"blue": "team-a", "green": "team-b"}
"""Releases, each with the namespace that it serves."""


def install(server: Server, name: str, values: dict[str, Any] | None = None, **options: Any) -> str:
    """`helm install`, by default in a namespace of the release's own; returns the objects.

    Args:
        server: where.
        name: of the release.
        values: of the chart.
        options: of Helm, such as `take_ownership`, which the package's own method does not know.
    """
    namespace = options.pop("namespace", f"{name}-system")
    with helm_python.Config(namespace=namespace, kubeconfig_path=server.kubeconfig) as config:
        handle, reference = config._chart_args(CHART)
        told = json.dumps({"create_namespace": True, **options})
        context, given = config._context_arg(None), json.dumps(values or {})
        release = _native.call_string("helm_install", config._raw(), context, handle, reference, name, given, told)
    server.wait_established()
    return str(json.loads(release)["manifest"])


def uninstall(server: Server, name: str, namespace: str) -> None:
    with helm_python.Config(namespace=namespace, kubeconfig_path=server.kubeconfig) as config:
        config.uninstall(name)


def values_of(release: str) -> dict[str, Any]:
    """One release serves one namespace, and is known by its images."""
    return {
        "watchNamespaces": [TEAMS[release]],
        "images": {name: {"tag": release} for name in ("operator", "trainer")},
        "crds": {"enabled": release == "blue"},
    }


@pytest.fixture(scope="module")
def server(control_plane: Server) -> Server:
    for namespace in TEAMS.values():
        control_plane.kubectl("create", "namespace", namespace)
    return control_plane


def deployment(server: Server, release: str) -> Manifest:
    return server.get("deployment", f"{release}-finetune-operator", f"--namespace={release}-system")


def test_two_releases_serve_their_own_namespaces_and_leave_the_others_jobs_alone(
    server: Server, tmp_path: Path
) -> None:
    for release in TEAMS:
        install(server, release, values_of(release))
    for namespace in TEAMS.values():
        server.apply(job(namespace=namespace))
    logs = {}
    with (
        operator(server, deployment(server, "blue"), tmp_path / "blue") as (*_, logs["blue"]),
        operator(server, deployment(server, "green"), tmp_path / "green", port=18180) as (*_, logs["green"]),
    ):
        for release, namespace in TEAMS.items():
            where = f"--namespace={namespace}"
            wait_for("preflight", partial(server.has, "job/support-bot-preflight-1", where), timeout=SECONDS)
            child = server.get("job/support-bot-preflight-1", where)
            [container] = child["spec"]["template"]["spec"]["containers"]
            assert container["image"].endswith(f":{release}")
            lease = server.get(f"lease/{release}-finetune-operator", f"--namespace={release}-system")
            assert lease["spec"]["holderIdentity"] == f"{release}-finetune-operator-0"
    for log in logs.values():
        said = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line for line in said if line["level"] in ("WARNING", "ERROR")] == []
        assert [line for line in said if "forbidden" in str(line).lower()] == []


RIGHTS = (("list", "finetunejobs"), ("create", "jobs"), ("patch", "finetunejobs", "--subresource=status"))


def test_no_release_may_touch_what_the_other_serves(server: Server) -> None:
    for release, namespace in TEAMS.items():
        account = f"--as=system:serviceaccount:{release}-system:{release}-finetune-operator"
        for other in TEAMS.values():
            for verb, *resource in RIGHTS:
                may = ("auth", "can-i", account, verb, *resource, f"--namespace={other}")
                if other == namespace:
                    assert server.kubectl(*may).strip() == "yes"
                else:
                    with pytest.raises(RefusedError):
                        server.kubectl(*may)


def test_the_policy_of_each_release_allows_its_own_images_alone(server: Server) -> None:
    child = server.get("job/support-bot-preflight-1", "--namespace=team-a")
    metadata = {key: child["metadata"][key] for key in ("namespace", "labels", "ownerReferences")}
    [container] = child["spec"]["template"]["spec"]["containers"]
    template = {"spec": child["spec"]["template"]["spec"]}
    copied = {**child, "metadata": {**metadata, "name": "copied"}, "spec": {"template": template}}
    account = "--as=system:serviceaccount:blue-system:blue-finetune-operator"

    def create() -> None:
        server.kubectl("create", "--dry-run=server", account, "-f", "-", stdin=json.dumps(copied))

    create()
    container["image"] = container["image"].replace(":blue", ":green")
    with pytest.raises(RefusedError, match="blue-finetune-operator-children"):
        create()


def commands(name: str) -> list[list[str]]:
    """The kubectl commands of docs/install.md that begin so, for release teal."""
    text = (ROOT / "docs/install.md").read_text().replace("\\\n", "")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(f"kubectl {name}")]
    return [shlex.split(line.replace("RELEASE", "teal").replace("NAMESPACE", "teal-system"))[1:] for line in lines]


def from_release(server: Server) -> None:
    """The CRD as an uninstalled release leaves it."""
    install(server, "gone")
    uninstall(server, "gone", "gone-system")


def from_kubectl(server: Server) -> None:
    """The CRD as somebody who uses kubectl applies it."""
    server.kubectl("apply", "-k", str(ROOT / "manifests/crd"))
    server.wait_established()


def from_an_older_checkout(server: Server) -> None:
    """The CRD of another version, as somebody who uses kubectl's server-side apply has it."""
    [crd] = [item for item in kustomize("crd").values() if item["metadata"]["name"] == CRD.partition("/")[2]]
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "An older one."
    server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd))
    server.wait_established()


def by_option(server: Server) -> None:
    """Adoption as the documentation has it for Helm 4."""
    text = (ROOT / "docs/install.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("helm install RELEASE ")]
    assert shlex.split(line)[-2:] == ["--take-ownership", "--force-conflicts"]
    install(server, "teal", take_ownership=True, force_conflicts=True)


def by_commands(server: Server) -> None:
    """Adoption as the documentation has it for every Helm."""
    found = [*commands("annotate crd"), *commands("label crd")]
    assert len(found) == 2
    for command in found:
        server.kubectl(*command)
    install(server, "teal")


@pytest.mark.parametrize(
    ("origin", "adopt"),
    [(from_release, by_option), (from_an_older_checkout, by_option), (from_kubectl, by_commands)],
)
def test_a_release_adopts_a_crd_that_is_there(
    server: Server, origin: Callable[[Server], None], adopt: Callable[[Server], None]
) -> None:
    clear(server)
    origin(server)
    server.apply(job())
    with pytest.raises(helm_python.HelmError, match="invalid ownership metadata"):
        install(server, "teal")
    adopt(server)
    assert server.get(CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "teal"
    uninstall(server, "teal", "teal-system")
    assert server.has("ftj/support-bot"), "neither adoption nor removal deletes jobs"


def test_a_release_adopts_all_that_kubectl_installed(server: Server) -> None:
    clear(server)
    server.kubectl("apply", "-k", str(ROOT / "manifests/default"))
    server.wait_established()
    server.apply(job())
    before = server.get("deployment/finetune-operator", f"--namespace={NAMESPACE}")["metadata"]["uid"]
    install(server, "finetune-operator", namespace=NAMESPACE, take_ownership=True, force_conflicts=True)
    after = server.get("deployment/finetune-operator", f"--namespace={NAMESPACE}")["metadata"]
    assert (after["uid"], after["labels"]["app.kubernetes.io/managed-by"]) == (before, "Helm")
    uninstall(server, "finetune-operator", NAMESPACE)
    assert not server.has("clusterrole/finetune-operator")
    assert server.has("ftj/support-bot")


def test_helm_sees_that_it_is_on_openshift(server: Server) -> None:
    if not server.has(CRD):
        from_kubectl(server)

    def platform() -> tuple[str, bool]:
        objects = yaml.safe_load_all(install(server, "look", {"crds": {"enabled": False}}, dry_run="server"))
        [pod] = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
        environment = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
        return environment["FINETUNE_PLATFORM"], "runAsUser" in pod["securityContext"]

    assert platform() == ("kubernetes", True)
    server.apply(SECURITY_CONTEXT_CONSTRAINTS)
    wait_for("the API to be there", lambda: platform() == ("openshift", False), timeout=SECONDS)


SECURITY_CONTEXT_CONSTRAINTS: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "securitycontextconstraints.security.openshift.io"},
    "spec": {
        "group": "security.openshift.io",
        "scope": "Cluster",
        "names": {"kind": "SecurityContextConstraints", "plural": "securitycontextconstraints"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}
"""What Helm knows OpenShift by."""


def clear(server: Server) -> None:
    """Removes what an earlier test left: its releases, and the CRDs."""
    for release in TEAMS:
        if server.has(f"deployment/{release}-finetune-operator", f"--namespace={release}-system"):
            uninstall(server, release, f"{release}-system")
    server.kubectl("delete", *CRDS, "--ignore-not-found")
