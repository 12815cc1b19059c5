"""The defences in the API server, each as a context in which it is missing: RBAC, and the CRD's subresource."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from component.plane import REPOSITORY, a_finetunejob, eventually_seen
from component.tenants.defences import Defence
from component.tenants.site import Object, Site
from finetune_operator.kube.api import FINETUNEJOBS, Resource

CRD = "finetunejobs.finetune.dev"


def granted(where: Callable[[Site], str], group: str, resource: str, *verbs: str) -> Defence:
    """RBAC that gives the tenant more."""

    @asynccontextmanager
    async def without(site: Site) -> AsyncIterator[None]:
        namespace, name = where(site), f"too-much-{site.name}"
        metadata = {"name": name}
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}]
        subjects = [{"apiGroup": _RBAC, "kind": "User", "name": site.ground.user}]
        role_ref = {"apiGroup": _RBAC, "kind": "Role", "name": name}
        plural, _, subresource = resource.partition("/")
        asked = {
            "namespace": namespace,
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "verb": verbs[0],
        }
        role = await site.admin.create(_ROLES, namespace, {"metadata": metadata, "rules": rules})
        bound = {"metadata": metadata, "roleRef": role_ref, "subjects": subjects}
        binding = await site.admin.create(_BINDINGS, namespace, bound)
        try:
            await _until(site, asked, allowed=True)
            yield
        finally:
            await site.admin.delete(_BINDINGS, namespace, name, uid=binding["metadata"]["uid"])
            await site.admin.delete(_ROLES, namespace, name, uid=role["metadata"]["uid"])
            await _until(site, asked, allowed=False)

    return without


_RBAC = "rbac.authorization.k8s.io"
_ROLES = Resource(group=_RBAC, version="v1", plural="roles")
_BINDINGS = Resource(group=_RBAC, version="v1", plural="rolebindings")
_REVIEWS = Resource(group="authorization.k8s.io", version="v1", plural="selfsubjectaccessreviews")


async def _until(site: Site, asked: Object, *, allowed: bool) -> None:
    """Waits until the API server's authorizer knows."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}}
    deadline = time.monotonic() + 30
    while True:
        answer = await site.tenant.create(_REVIEWS, None, {**review, "spec": {"resourceAttributes": asked}})
        if answer["status"]["allowed"] is allowed:
            return
        assert time.monotonic() < deadline, f"the tenant's right stays {not allowed}: {asked}"
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _without_status_subresource(site: Site) -> AsyncIterator[None]:
    """The CRD without `subresources`: the status is a field as any other."""
    plane = site.ground.plane
    patch = json.dumps([{"op": "remove", "path": "/spec/versions/0/subresources"}])
    plane.kubectl("patch", "crd", CRD, "--type=json", f"--patch={patch}")
    probe = {**a_finetunejob(site.attacker, "probe"), "status": {"phase": "Succeeded"}}

    async def written() -> bool:
        answer = await site.tenant.create(FINETUNEJOBS, site.attacker, probe, dry_run=True)
        return "phase" in answer.get("status", {})

    try:
        await eventually_seen("a CRD without a subresource", written)
        yield
    finally:
        plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", REPOSITORY / "manifests/crd/finetunejobs.yaml"
        )

        async def dropped() -> bool:
            return not await written()

        await eventually_seen("the CRD as it is shipped", dropped)


STATUS_SUBRESOURCE: Defence = _without_status_subresource
