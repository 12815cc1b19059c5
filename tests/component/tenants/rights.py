"""Attacks that the API server refuses, because the operator's roles give the tenant no more than they must."""

from component.plane import SYSTEM, a_finetunejob
from component.tenants.attack import Table
from component.tenants.server_defences import STATUS_SUBRESOURCE, granted
from component.tenants.site import SERVICE_ACCOUNTS, Site
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, LEASES

ATTACKS = Table()


def _attacker(site: Site) -> str:
    return site.attacker


def _victim(site: Site) -> str:
    return site.victim


def _system(_: Site) -> str:
    return SYSTEM


@ATTACKS.row("a status that the tenant writes", granted(_attacker, names.GROUP, "finetunejobs/status", "patch"))
async def _(site: Site) -> bool:
    await site.begin(site.attacker)
    success = {"status": {"phase": "Succeeded"}}
    return await site.allowed(
        site.tenant.merge(FINETUNEJOBS, site.attacker, site.name, success, field_manager="tenant", subresource="status")
    )


@ATTACKS.row("a FineTuneJob that is created with a status", STATUS_SUBRESOURCE)
async def _(site: Site) -> bool:
    body = {**a_finetunejob(site.attacker, site.name), "status": {"phase": "Succeeded"}}
    raw = await site.tenant.create(FINETUNEJOBS, site.attacker, body)
    return bool(raw["status"].get("phase") == "Succeeded")


@ATTACKS.row("the victim's FineTuneJob runs again", granted(_victim, names.GROUP, "finetunejobs", "patch"))
async def _(site: Site) -> bool:
    await site.begin(site.victim)
    again = {"spec": {"runToken": "evil"}}
    return await site.allowed(site.tenant.merge(FINETUNEJOBS, site.victim, site.name, again, field_manager="tenant"))


@ATTACKS.row("the victim's training is deleted", granted(_victim, "batch", "jobs", "delete"))
async def _(site: Site) -> bool:
    victim = await site.begin(site.victim)
    status = victim["status"]
    return await site.allowed(site.tenant.delete(JOBS, site.victim, status["jobName"], uid=status["jobUid"]))


@ATTACKS.row(
    "the operator's Lease, so that no replica leads", granted(_system, "coordination.k8s.io", "leases", "create")
)
async def _(site: Site) -> bool:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": site.name},
        "spec": {"holderIdentity": "evil", "leaseDurationSeconds": 86_400},
    }
    held = await site.allowed(site.tenant.create(LEASES, SYSTEM, lease))
    if held:
        site.ground.plane.kubectl("delete", "lease", site.name, "-n", SYSTEM)
    return held


@ATTACKS.row("a token of the operator's account", granted(_system, "", "serviceaccounts/token", "create"))
async def _(site: Site) -> bool:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = SERVICE_ACCOUNTS.path(SYSTEM, "finetune-operator", "token")
    return await site.allowed(site.tenant._request("POST", path, body=request))
