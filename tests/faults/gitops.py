"""What GitOps tools, backups and administrators do to a job that has trained or is training: nothing trains again."""

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmarks.tables import Table

from component.plane import REPOSITORY, Plane
from faults.cases import each
from faults.kubelet import Kubelet
from faults.site import DidNotConverge, Site, job_end, site
from finetune_operator.api import names
from finetune_operator.kube.api import JOBS
from finetune_operator.kube.errors import KubeError, NotFound

CRD = REPOSITORY / "manifests/crd/finetunejobs.yaml"
_SERVER_SIDE = ("--server-side", "--force-conflicts", "-f", "-")
ENDED, TRAINING = "has trained", "trains"


class World:
    """A job, as a user with kubectl sees it.

    Attributes:
        site: the namespace and the operator.
        kubelet: ends its pods.
    """

    def __init__(self, place: Site) -> None:
        self.site = place
        self.kubelet = Kubelet(place)
        self._fences = 0

    async def kubectl(self, *arguments: str, stdin: dict[str, Any] | None = None) -> str:
        """Runs kubectl in the namespace.

        Raises:
            AssertionError: it failed; for `diff`: there is a difference.
        """
        text = None if stdin is None else json.dumps(stdin)
        command = (*arguments, "--namespace", self.site.namespace)
        return await asyncio.to_thread(self.site.plane.kubectl, *command, stdin=text)

    def manifest(self) -> dict[str, Any]:
        """The job as it is in Git."""
        return self.site.manifest(preflight={"enabled": True})

    async def apply(self) -> None:
        """Applies it as a client does."""
        await self.kubectl("apply", "-f", "-", stdin=self.manifest())

    async def backup(self) -> dict[str, Any]:
        """The job with its status, as a backup tool keeps it."""
        kept: dict[str, Any] = json.loads(await self.kubectl("get", "ftj", "job", "-o", "json"))
        for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            kept["metadata"].pop(name, None)
        return kept

    async def remove(self, *options: str) -> None:
        """Deletes the job."""
        await self.kubectl("delete", "ftj", "job", *options)

    async def restore(self, kept: dict[str, Any], *, status: bool) -> None:
        """Restores a backup: first the object, then its status."""
        await self.kubectl("create", "-f", "-", stdin=kept)
        if status:
            patch = json.dumps({"status": kept["status"]})
            await self.kubectl("patch", "ftj", "job", "--subresource=status", "--type=merge", f"--patch={patch}")

    async def trains(self) -> None:
        """Waits until the job trains."""
        await self.site.phase("Running")

    async def ends(self) -> None:
        """Waits until the job's end is in the status, of the generation that the spec has, and nothing is at work."""

        async def look() -> bool:
            job = await self.site.job()
            status = job.get("status") or {}
            seen = status.get("observedGeneration") == job["metadata"]["generation"]
            uid = job["metadata"]["uid"]
            jobs = await self.site.items(JOBS, f"{names.FINETUNEJOB_NAME_LABEL}=job")
            others = [item for item in jobs if _owner(item) not in (uid, "") or job_end(item) == "active"]
            return bool(seen and status.get("phase") == "Succeeded" and not others)

        await self.site.until("the job to have succeeded, and no other Job to be there", look)

    async def gone(self) -> None:
        """Waits until neither job nor children are there."""

        async def look() -> bool:
            try:
                await self.site.job()
            except NotFound:
                return not await self.site.left()
            return False

        await self.site.until("job and children to be gone", look)

    async def fence(self) -> None:
        """Waits until the operator has seen a later job through: whatever it would do to this one, it has begun."""
        self._fences += 1
        name = f"fence-{self._fences}"
        await self.site.create(name)
        await self.site.phase("Succeeded", name=name)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is done to a job.

    Attributes:
        name: in the table.
        to: whether the job has trained, or trains.
        act: does it.
        gone: the job is not there afterwards.
        alone: changes the whole cluster, so no other row is played beside it.
    """

    name: str
    to: str
    act: Callable[[World], Awaitable[None]]
    gone: bool = False
    alone: bool = False

    def __str__(self) -> str:
        """For people."""
        return f"{self.name}: job that {self.to}"


async def _apply_again(world: World) -> None:
    said = await world.kubectl("apply", "-f", "-", stdin=world.manifest())
    assert "unchanged" in said, said


async def _diff(world: World) -> None:
    await world.kubectl("diff", "-f", "-", stdin=world.manifest())
    await world.kubectl("apply", *_SERVER_SIDE, stdin=world.manifest())
    await world.kubectl("diff", *_SERVER_SIDE, stdin=world.manifest())


async def _replace(world: World) -> None:
    await world.kubectl("replace", "-f", "-", stdin=world.manifest())


async def _replace_by_export(world: World) -> None:
    exported = json.loads(await world.kubectl("get", "ftj", "job", "-o", "json"))
    exported["metadata"].pop("resourceVersion")
    await world.kubectl("replace", "-f", "-", stdin=exported)


async def _replace_by_force(world: World) -> None:
    await world.kubectl("replace", "--force", "-f", "-", stdin=world.manifest())


async def _delete_and_apply(world: World) -> None:
    await world.remove()
    await world.apply()


async def _delete_in_the_foreground_and_apply(world: World) -> None:
    await world.remove("--cascade=foreground")
    await world.apply()


async def _orphan_and_apply(world: World) -> None:
    await world.remove("--cascade=orphan")
    await world.apply()


async def _restore_with_status(world: World) -> None:
    kept = await world.backup()
    await world.remove()
    await world.restore(kept, status=True)


async def _restore_without_status(world: World) -> None:
    kept = await world.backup()
    await world.remove()
    await world.restore(kept, status=False)


async def _restore_while_down(world: World) -> None:
    kept = await world.backup()
    await world.site.stop()
    await world.remove()
    await world.restore(kept, status=True)
    world.site.start()


async def _restore_with_children(world: World) -> None:
    """The backup has the Jobs too. Their owner, by UID, is not there any more."""
    kept, jobs = await world.backup(), await world.site.jobs()
    await world.site.stop()
    await world.remove()
    await world.gone()
    for job in jobs:
        child = {**copy.deepcopy(job), "apiVersion": "batch/v1", "kind": "Job"}
        for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            child["metadata"].pop(name, None)
        child["spec"].pop("selector", None)
        for labels in (child["metadata"]["labels"], child["spec"]["template"]["metadata"]["labels"]):
            for name in ("controller-uid", "batch.kubernetes.io/controller-uid"):
                labels.pop(name, None)
        await world.kubectl("create", "-f", "-", stdin=child)
    await world.restore(kept, status=False)
    world.site.start()


async def _delete_children(world: World) -> None:
    await world.kubectl("delete", "jobs", "--all")


async def _ttl(world: World) -> None:
    await world.kubectl(
        "patch", "ftj", "job", "--type=merge", '--patch={"spec":{"retention":{"ttlSecondsAfterFinished":0}}}'
    )

    async def look() -> bool:
        return not await world.site.items(JOBS)

    await world.site.until("the children to expire", look)


async def _other_manager(world: World) -> None:
    for _ in range(2):
        await world.kubectl("apply", "--field-manager=argocd-controller", *_SERVER_SIDE, stdin=world.manifest())


async def _labels(world: World) -> None:
    await world.kubectl("label", "ftj", "job", "team=a")
    await world.kubectl("annotate", "ftj", "job", "note=b")


async def _crd_description(world: World) -> None:
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["description"] += " Of another version."
    await _change_crd(world, crd)


async def _crd_field(world: World) -> None:
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for section in ("spec", "status"):
        schema["properties"][section]["properties"]["laterField"] = {"type": "string"}
    await _change_crd(world, crd)


async def _change_crd(world: World, crd: dict[str, Any]) -> None:
    command = ("apply", "--server-side", "--force-conflicts", "-f")
    try:
        await world.kubectl(*command, "-", stdin=crd)
        await world.site.stop()
        world.site.start()
        await world.fence()
    finally:
        await world.kubectl(*command, str(CRD))


async def _uninstall_first(world: World) -> None:
    await world.site.stop()
    await world.remove("--timeout=60s")


async def _delete_namespace(world: World) -> None:
    await world.site.stop()
    await world.site.delete_namespace()


async def _crd_away(world: World) -> None:
    """The CRD is deleted under a running operator, and every job with it; then it comes back."""
    await asyncio.to_thread(world.site.plane.kubectl, "delete", "-f", CRD, "--timeout=60s")
    await world.site.until("the children to be collected", lambda: _none_left(world))
    await asyncio.to_thread(world.site.plane.kubectl, "apply", "--server-side", "-f", CRD)
    await asyncio.to_thread(world.site.plane.await_crd)
    await world.apply()


def _owner(job: dict[str, Any]) -> str:
    owners = job["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid", ""))


async def _none_left(world: World) -> bool:
    return not await world.site.left()


_BOTH: tuple[tuple[str, Callable[[World], Awaitable[None]]], ...] = (
    ("`kubectl apply` again", _apply_again),
    ("`kubectl diff` is empty", _diff),
    ("`kubectl replace`", _replace),
    ("`kubectl replace` with what `get` gave", _replace_by_export),
    ("`kubectl replace --force`", _replace_by_force),
    ("deleted and applied again", _delete_and_apply),
    ("deleted in the foreground and applied again", _delete_in_the_foreground_and_apply),
    ("deleted with `--cascade=orphan` and applied again", _orphan_and_apply),
    ("server-side apply by another manager", _other_manager),
    ("labels and annotations", _labels),
    ("restored with its status", _restore_with_status),
    ("restored without its status", _restore_without_status),
    ("restored with its status while the operator was down", _restore_while_down),
    ("restored with its old child Jobs", _restore_with_children),
    ("child Jobs deleted by hand", _delete_children),
)
ROWS = (
    *(Row(name=name, to=to, act=act) for name, act in _BOTH for to in (ENDED, TRAINING)),
    Row(name="TTL of the child Jobs", to=ENDED, act=_ttl),
    *(
        Row(name=name, to=to, act=act, gone=True)
        for name, act in (
            ("operator uninstalled first, then the job deleted", _uninstall_first),
            ("operator uninstalled first, then the namespace deleted", _delete_namespace),
        )
        for to in (ENDED, TRAINING)
    ),
    *(
        Row(name=name, to=to, act=act, alone=True)
        for name, act in (
            ("CRD with another description, operator restarted", _crd_description),
            ("CRD with one more optional field, operator restarted", _crd_field),
        )
        for to in (ENDED, TRAINING)
    ),
    Row(name="CRD deleted, applied again, job applied again", to=ENDED, act=_crd_away, alone=True),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a row went.

    Attributes:
        began: trainings that began.
        trained: trainings that ended with an adapter; should be one.
        wrong: what should not be.
    """

    began: int
    trained: int
    wrong: list[str]


async def played(plane: Plane, folder: Path, row: Row) -> Result:
    """Plays a row."""
    async with site(plane, folder) as place:
        world = World(place)
        wrong: list[str] = []
        async with world.kubelet.running():
            try:
                await _play(world, row)
            except (AssertionError, DidNotConverge, KubeError) as error:
                wrong.append(f"{type(error).__name__}: {error}"[:500])
        began, trained = world.kubelet.began["job"], world.kubelet.trained["job"]
        wrong += place.errors()
        if trained > 1 or (row.to == ENDED and began > 1):
            wrong.append(f"trained again: {began} trainings began, {trained} ended")
        return Result(began=began, trained=trained, wrong=wrong)


async def _play(world: World, row: Row) -> None:
    world.site.start()
    if row.to == TRAINING:
        world.kubelet.hold.add("job")
    await world.apply()
    await (world.trains() if row.to == TRAINING else world.ends())
    await row.act(world)
    if row.gone:
        await world.gone()
        return
    await world.fence()
    world.kubelet.hold.clear()
    await world.ends()


async def table(plane: Plane, folder: Path, rows: Sequence[Row] = ROWS, *, at_a_time: int) -> tuple[Table, bool]:
    """The table, and whether everything in it is as it should be."""
    beside = [row for row in rows if not row.alone]
    alone = [row for row in rows if row.alone]
    order = [*beside, *alone]
    found: list[Result] = []
    for some, count in ((beside, at_a_time), (alone, 1)):
        found += await each(some, lambda row: played(plane, folder, row), count, wrong=lambda _, item: item.wrong)
    good = sum(not item.wrong for item in found)
    heads = ["what is done", "to a job that", "trainings begun", "ended with an adapter", ""]
    result = Table(title="GitOps, backups, upgrades", heads=heads)
    for row, item in zip(order, found, strict=True):
        verdict = "**no**" if item.wrong else "gone" if row.gone else "ends well"
        result.rows.append((row.name, row.to, str(item.began), str(item.trained), verdict))
    result.note = f"{good} of {len(order)} as they should be: nothing trained again, nothing hung, no ERROR line."
    return result, good == len(order)
