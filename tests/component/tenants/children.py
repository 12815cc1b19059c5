"""Attacks with Jobs and pods that look like the operator's."""

from typing import Any

from component.plane import a_finetunejob, run_pod
from component.tenants.attack import Table
from component.tenants.defences import (
    ATTEMPT_IN_NAME,
    CHECK_OF_EXISTING_JOB,
    LENGTH_OF_NAME,
    LIVE_READ,
    NAMESPACE_OF_CHILDREN,
    OWNER_OF_SERVICE,
    READABLE,
    RECORDED_UID,
    STRIPPED_CHILD,
    TEMPLATE_OF_EXISTING,
)
from component.tenants.site import EVIL_OUTPUT, FORGED_SUCCESS, Object, Site
from finetune_operator.api import names
from finetune_operator.kube.api import EVENTS, FINETUNEJOBS, JOBS, PODS, SERVICES
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.termination import Outcome, Termination

ATTACKS = Table()
_ACROSS = (NAMESPACE_OF_CHILDREN, RECORDED_UID, LIVE_READ)
_EVIL = {"name": "evil", "image": "evil:1"}


async def _forge(site: Site, role: str, said: Termination, exit_code: int = 0, **spec: Any) -> None:
    """The victim's child, copied into the tenant's namespace, whose pod has ended."""
    victim = await site.begin(site.victim, **spec)
    manifest = site.child(victim, role)
    manifest["metadata"]["namespace"] = site.attacker
    owners = manifest["metadata"].pop("ownerReferences")
    name = manifest["metadata"]["name"]
    await site.tenant.create(JOBS, site.attacker, manifest)
    pod = await site.end(await site.pod(site.attacker, name), said, exit_code)
    if exit_code:
        await site.failed(site.attacker, name)
    # Last: the garbage collector removes what has an owner in another namespace.
    job = await site.patch(JOBS, name, {"metadata": {"ownerReferences": owners}})
    await site.sees(job, pod)


@ATTACKS.row("a training of another namespace that succeeded", *_ACROSS)
async def _(site: Site) -> bool:
    await _forge(site, names.TRAIN_ROLE, FORGED_SUCCESS)
    return await site.shows_evil_output(site.victim)


@ATTACKS.row("a preflight of another namespace that found an adapter", *_ACROSS)
async def _(site: Site) -> bool:
    reused = FORGED_SUCCESS.model_copy(update={"outcome": Outcome.REUSED})
    await _forge(site, names.PREFLIGHT_ROLE, reused, preflight={"enabled": True})
    return await site.shows_evil_output(site.victim)


@ATTACKS.row("a training of another namespace that failed for good", *_ACROSS)
async def _(site: Site) -> bool:
    failed = Termination(outcome=Outcome.FAILED, reason=FailureReason.DATASET_INVALID, message="evil")
    await _forge(site, names.TRAIN_ROLE, failed, exit_code=1)
    status = await site.status(site.victim)
    return bool(status["phase"] == "Failed")


@ATTACKS.row("a pod of another namespace that names the victim's Job as its owner", NAMESPACE_OF_CHILDREN, LIVE_READ)
async def _(site: Site) -> bool:
    victim = await site.begin(site.victim)
    child = await site.admin.get(JOBS, site.victim, victim["status"]["jobName"])
    template = child["spec"]["template"]
    metadata = {"name": site.name, "labels": template["metadata"]["labels"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _pod_spec("trainer")}
    ended = await site.end(await site.tenant.create(PODS, site.attacker, pod), FORGED_SUCCESS)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "name": child["metadata"]["name"]}
    owners = [{**owner, "uid": child["metadata"]["uid"]}]
    ended = await site.patch(PODS, site.name, {"metadata": {"ownerReferences": owners}})
    await site.sees(child, ended)
    return await site.shows_evil_output(site.victim)


@ATTACKS.row("a second Job with the labels and the owner of the first", RECORDED_UID)
async def _(site: Site) -> bool:
    own = await site.begin(site.attacker)
    manifest = site.child(own)
    manifest["metadata"]["name"] = f"{site.name}-second"
    await site.tenant.create(JOBS, site.attacker, manifest)
    await site.end(await site.pod(site.attacker, f"{site.name}-second"), FORGED_SUCCESS)
    await site.look()
    return await site.shows_evil_output(site.attacker)


async def _squat(site: Site, manifest: Object) -> bool:
    """A Job of the tenant's has the name of the child before the operator creates that."""
    squatter = await site.tenant.create(JOBS, site.attacker, manifest)
    await site.patch_spec(suspend=False)
    for _ in range(2):
        await site.look()
    return bool((await site.status(site.attacker)).get("jobUid") == squatter["metadata"]["uid"])


async def _suspended(site: Site) -> Object:
    """The child of a FineTuneJob that waits: the tenant knows all of it before the operator creates it."""
    return site.child(await site.begin(site.attacker, suspend=True))


@ATTACKS.row("a Job without an owner has the child's name before the operator creates it", TEMPLATE_OF_EXISTING)
async def _(site: Site) -> bool:
    manifest = await _suspended(site)
    manifest["metadata"] = {"name": manifest["metadata"]["name"]}
    manifest["spec"]["template"] = {"spec": {**_pod_spec("trainer"), "restartPolicy": "Never"}}
    return await _squat(site, manifest)


@ATTACKS.row("the child, with an image of the tenant's, before the operator creates it", TEMPLATE_OF_EXISTING)
async def _(site: Site) -> bool:
    manifest = await _suspended(site)
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    return await _squat(site, manifest)


@ATTACKS.row("the child, with a command added, before the operator creates it", CHECK_OF_EXISTING_JOB)
async def _(site: Site) -> bool:
    manifest = await _suspended(site)
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["evil"]
    return await _squat(site, manifest)


@ATTACKS.row("the child, with a container added, before the operator creates it", CHECK_OF_EXISTING_JOB)
async def _(site: Site) -> bool:
    manifest = await _suspended(site)
    manifest["spec"]["template"]["spec"]["initContainers"] = [_EVIL]
    return await _squat(site, manifest)


@ATTACKS.row("the child, with a selector of the tenant's, before the operator creates it", CHECK_OF_EXISTING_JOB)
async def _(site: Site) -> bool:
    manifest = await _suspended(site)
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    chosen = {names.FINETUNEJOB_UID_LABEL: labels[names.FINETUNEJOB_UID_LABEL]}
    manifest["spec"] |= {"manualSelector": True, "selector": {"matchLabels": chosen}}
    return await _squat(site, manifest)


@ATTACKS.row("a name whose child has the name of another job's child", LENGTH_OF_NAME)
async def _(site: Site) -> bool:
    """The harm: a job of the same namespace, which has a long name, gets no child."""
    long = f"{site.name}-{'x' * (names.MAX_NAME - len(site.name) - 1)}"
    taken = names.child_name(long, names.TRAIN_ROLE, 1).removesuffix(f"-{names.TRAIN_ROLE}-1")
    await site.tenant.create(FINETUNEJOBS, site.attacker, a_finetunejob(site.attacker, taken))
    await site.look()
    await site.admin.create(FINETUNEJOBS, site.attacker, a_finetunejob(site.attacker, long))
    await site.look()
    status = (await site.admin.get(FINETUNEJOBS, site.attacker, long))["status"]
    return "jobUid" not in status


@ATTACKS.row("a Service of somebody else has the name of the operator's", OWNER_OF_SERVICE)
async def _(site: Site) -> bool:
    """The harm: whoever may create FineTuneJobs, and no Services, sends that Service's clients to its own pods."""
    name, selector = names.service_name(site.name), {"app": "payments"}
    spec = {"clusterIP": "None", "selector": selector, "ports": [{"name": "http", "port": 80}]}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    await site.admin.create(SERVICES, site.attacker, body)
    await site.begin(site.attacker, resources={"nodes": 2})
    return bool((await site.admin.get(SERVICES, site.attacker, name))["spec"]["selector"] != selector)


@ATTACKS.row("a finalizer keeps a deleted child", ATTEMPT_IN_NAME)
async def _(site: Site) -> bool:
    """The harm: the job waits for ever, for a child that is being deleted."""
    own = await site.begin(site.attacker, retry={"backoffSeconds": 0})
    first = own["status"]["jobName"]
    await site.patch(JOBS, first, {"metadata": {"finalizers": ["evil.example/kept"]}})
    for suspend in (True, False):
        await site.patch_spec(suspend=suspend)
        await site.look()
    current = (await site.status(site.attacker)).get("jobName")
    job = await site.admin.get(JOBS, site.attacker, current or first)
    await site.patch(JOBS, first, {"metadata": {"finalizers": None}})
    return "deletionTimestamp" in job["metadata"]


async def _strip(site: Site, metadata: Object) -> bool:
    """The harm: the first training runs on, and a second one begins beside it."""
    own = await site.begin(site.attacker, retry={"backoffSeconds": 0})
    await run_pod(site.admin, await site.pod(site.attacker, own["status"]["jobName"]))
    await site.look()
    await site.patch(JOBS, own["status"]["jobName"], {"metadata": metadata})
    for _ in range(3):
        await site.look()
    return await site.exists(JOBS, site.attacker, names.child_name(site.name, names.TRAIN_ROLE, 2))


@ATTACKS.row("a child that trains loses its labels", STRIPPED_CHILD)
async def _(site: Site) -> bool:
    return await _strip(site, {"labels": {names.MANAGED_BY_LABEL: None, names.FINETUNEJOB_UID_LABEL: None}})


@ATTACKS.row("a child that trains loses its owner", STRIPPED_CHILD)
async def _(site: Site) -> bool:
    return await _strip(site, {"ownerReferences": None})


_ESCAPES = "\x1b]0;evil\x07\x9b2J\u202elive\u2066"


async def _escapes(site: Site, said: Termination | str, exit_code: int) -> bool:
    own = await site.begin(site.attacker, retry={"limit": 0})
    name = own["status"]["jobName"]
    await site.end(await site.pod(site.attacker, name), said, exit_code)
    await site.failed(site.attacker, name)
    await site.look()
    status = await site.status(site.attacker)
    assert status["phase"] == "Failed"
    shown = [status["failure"]["message"]]
    async for page in site.admin.pages(EVENTS, site.attacker):
        shown += [item["note"] for item in page.items if item["regarding"]["name"] == site.name]
    return any(escape in text for text in shown for escape in _ESCAPES if not escape.isprintable())


@ATTACKS.row("control characters in a termination message", READABLE)
async def _(site: Site) -> bool:
    said = Termination.model_construct(
        outcome=Outcome.FAILED, reason=FailureReason.DATASET_INVALID, message=_ESCAPES, output=EVIL_OUTPUT
    )
    return await _escapes(site, said, 1)


@ATTACKS.row("control characters at the end of a log", READABLE)
async def _(site: Site) -> bool:
    return await _escapes(site, f"Traceback: {_ESCAPES}", 1)


def _pod_spec(container: str) -> Object:
    return {"containers": [{"name": container, "image": "evil:1"}]}
