"""The operator as it is started: one process or two, with the rights of its service account and the real policy."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from component.plane import (
    SYSTEM,
    Plane,
    Process,
    a_finetunejob,
    end_pod,
    eventually,
    eventually_seen,
    operator,
    run_pod,
)
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS
from finetune_operator.kube.client import ClientKube
from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.termination import Outcome, Termination


class World:
    """What a user and a kubelet see and do."""

    def __init__(self, admin: ClientKube, namespace: str) -> None:
        self.admin = admin
        self.namespace = namespace

    async def create(self, name: str = "job", **spec: Any) -> None:
        await self.admin.create(FINETUNEJOBS, self.namespace, a_finetunejob(self.namespace, name, **spec))

    async def phase(self, name: str, phase: str) -> dict[str, Any]:
        """Waits for the phase; the object."""

        async def look() -> dict[str, Any] | None:
            raw = await self.admin.get(FINETUNEJOBS, self.namespace, name)
            return raw if raw["status"].get("phase") == phase else None

        return await eventually_seen(f"{name} to be {phase}", look)

    async def pod(self, job: str) -> dict[str, Any]:
        """The pod of a Job."""

        async def look() -> dict[str, Any] | None:
            pages = [page async for page in self.admin.pages(PODS, self.namespace, label_selector=f"job-name={job}")]
            return next((item for page in pages for item in page.items), None)

        return await eventually_seen(f"a pod of {job}", look)

    async def numbered_pods(self, job: str, count: int) -> list[dict[str, Any]]:
        """All pods of a Job of several, by their number."""

        async def look() -> list[dict[str, Any]] | None:
            pages = [page async for page in self.admin.pages(PODS, self.namespace, label_selector=f"job-name={job}")]
            items = [item for page in pages for item in page.items]
            return sorted(items, key=_number) if len(items) == count else None

        return await eventually_seen(f"{count} pods of {job}", look)

    async def jobs(self) -> list[str]:
        pages = [page async for page in self.admin.pages(JOBS, self.namespace)]
        return sorted(item["metadata"]["name"] for page in pages for item in page.items)


def _number(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["labels"][names.INDEX_LABEL])


@pytest.fixture
def world(admin: ClientKube, namespace: str) -> World:
    return World(admin, namespace)


async def ready(process: Process) -> None:
    """Waits until the process answers its probes."""

    async def look() -> bool | None:
        assert process.popen.poll() is None, process.log.read_text()
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{process.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return None

    await eventually_seen("the operator to be ready", look)


async def test_a_whole_life_within_the_budget_of_writes(
    plane: Plane, world: World, admin: ClientKube, namespace: str, tmp_path: Path
) -> None:
    with operator(plane, tmp_path, namespace) as process:
        await ready(process)
        mark = plane.mark()
        await world.create(preflight={"enabled": True})
        await end_pod(admin, await world.pod("job-preflight-1"), termination='{"outcome": "Succeeded"}')
        pod = await world.pod("job-train-1")
        await run_pod(admin, pod)
        await world.phase("job", "Running")
        await end_pod(admin, pod)
        raw = await world.phase("job", "Succeeded")
        assert raw["status"]["progress"]["step"] == 10
        assert raw["metadata"].get("annotations", {}) == {}, "kopf must leave no trace"
        assert raw["metadata"].get("finalizers", []) == []
        writes = plane.operator_writes(mark, namespace)
        assert len(writes) <= 6, writes
        assert process.terminate() == 0
        problems = [line for line in process.lines() if line["level"] != "INFO"]
        assert problems == []


async def test_without_preflight_a_life_is_at_most_three_and_a_half_writes(
    plane: Plane, world: World, admin: ClientKube, namespace: str, tmp_path: Path
) -> None:
    with operator(plane, tmp_path, namespace) as process:
        await ready(process)
        mark = plane.mark()
        for index in range(4):
            await world.create(f"job-{index}")
        for index in range(4):
            await end_pod(admin, await world.pod(f"job-{index}-train-1"))
        for index in range(4):
            await world.phase(f"job-{index}", "Succeeded")
        writes = plane.operator_writes(mark, namespace)
        assert len(writes) <= 3.5 * 4, writes


async def test_several_pods_are_one_attempt_with_one_reason(
    plane: Plane, world: World, admin: ClientKube, namespace: str, tmp_path: Path
) -> None:
    lost = Termination(outcome=Outcome.FAILED, reason=FailureReason.PEER_FAILED, message="another process is gone")
    with operator(plane, tmp_path, namespace) as process:
        await ready(process)
        mark = plane.mark()
        await world.create(resources={"nodes": 2}, retry={"backoffSeconds": 1})
        first, second = await world.numbered_pods("job-train-1", 2)
        await run_pod(admin, first)
        await run_pod(admin, second)
        raw = await world.phase("job", "Running")
        assert (raw["status"]["gpus"], raw["status"]["podName"]) == (2, first["metadata"]["name"])
        service = plane.get("service", namespace, first["spec"]["subdomain"])
        assert service["spec"]["selector"].items() <= second["metadata"]["labels"].items()
        # The first one says at once what it sees of the second's end.
        await end_pod(admin, first, exit_code=ExitCode.PEER_FAILED, termination=lost.to_json())
        await end_pod(admin, second, exit_code=137, termination="")
        pods = await world.numbered_pods("job-train-2", 2)
        for pod in reversed(pods):
            await end_pod(admin, pod)
        raw = await world.phase("job", "Succeeded")
        reasons = [attempt["reason"] for attempt in raw["status"]["attempts"]]
        assert reasons == ["Killed", "TrainingSucceeded"]
        assert raw["status"]["restarts"] == 1
        assert [write for write in plane.operator_writes(mark, namespace) if "finetunejobs" not in write] == [
            "create services pods-job",
            "patch jobs job-train-1",
            "create services pods-job",  # it exists
            "patch services pods-job",  # whose is it?
            "patch services pods-job",
            "patch jobs job-train-2",
        ]


async def test_a_restart_finds_everything_and_repeats_nothing(
    plane: Plane, world: World, admin: ClientKube, namespace: str, tmp_path: Path
) -> None:
    with operator(plane, tmp_path, namespace) as process:
        await world.create("ended")
        await end_pod(admin, await world.pod("ended-train-1"))
        await world.phase("ended", "Succeeded")
        await world.create("running")
        await run_pod(admin, await world.pod("running-train-1"))
        await world.phase("running", "Running")
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait()
    mark = plane.mark()
    await world.create("new")
    name = f"operator-{process.port}"
    with operator(plane, tmp_path, namespace, POD_NAME=name) as again:
        # The same replica comes back: its Lease is still its own.
        await world.phase("new", "Starting")
        assert plane.operator_writes(mark, namespace) == ["patch jobs new-train-1", "patch finetunejobs/status new"]
        await end_pod(admin, await world.pod("running-train-1"))
        await world.phase("running", "Succeeded")
        assert again.terminate() == 0
    assert await world.jobs() == ["ended-train-1", "new-train-1", "running-train-1"]


async def test_of_two_replicas_one_works_and_the_other_takes_over(
    plane: Plane, world: World, namespace: str, tmp_path: Path
) -> None:
    with operator(plane, tmp_path, namespace) as first, operator(plane, tmp_path, namespace) as second:
        await ready(first)
        await ready(second)
        await world.create("before")
        await world.phase("before", "Starting")
        lease = plane.get("lease", SYSTEM, f"operator-{namespace}")
        leader, standby = (first, second)
        if lease["spec"]["holderIdentity"] == f"operator-{second.port}":
            leader, standby = second, first
        assert leader.terminate() == 0
        await world.create("after")
        await world.phase("after", "Starting")
        assert standby.popen.poll() is None
    assert await world.jobs() == ["after-train-1", "before-train-1"]


async def test_a_foreign_job_with_our_name_is_not_touched(
    plane: Plane, world: World, admin: ClientKube, namespace: str, tmp_path: Path
) -> None:
    """A Job that a user made, even with our labels, is not taken for a child."""
    with operator(plane, tmp_path, namespace) as process:
        await ready(process)
        await world.create("job")
        raw = await world.phase("job", "Starting")
        labels = (await admin.get(JOBS, namespace, "job-train-1"))["metadata"]["labels"]
        container = {"name": "main", "image": "image"}
        forged = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"namespace": namespace, "name": "forged", "labels": labels},
            "spec": {"template": {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never"}}},
        }
        forged["spec"]["template"]["spec"]["containers"] = [container]  # type: ignore[index]
        await admin.create(JOBS, namespace, forged)
        await end_pod(admin, await world.pod("forged"))
        await world.create("fence")
        await world.phase("fence", "Starting")
        now = await admin.get(FINETUNEJOBS, namespace, "job")
        assert now["status"] == raw["status"]


async def test_the_process_goes_on_after_its_right_to_watch_was_missing(
    plane: Plane, world: World, namespace: str, tmp_path: Path
) -> None:
    with (
        plane.may_only_list(namespace),
        operator(plane, tmp_path, namespace, FINETUNE_RESYNC_SECONDS="3600") as process,
    ):
        await ready(process)
        await eventually("a refused watch", lambda: "is forbidden" in process.log.read_text())
        plane.grant()
        await world.create()
        await world.phase("job", "Starting")
        assert process.popen.poll() is None
        assert process.terminate() == 0


async def test_a_namespace_that_is_gone_stops_no_other_and_health_says_so(
    plane: Plane, world: World, namespace: str, tmp_path: Path
) -> None:
    both = f"gone-{namespace},{namespace}"
    with (
        plane.serves_only(namespace),
        operator(plane, tmp_path, namespace, FINETUNE_WATCH_NAMESPACES=both) as process,
    ):
        await ready(process)
        await world.create()
        await world.phase("job", "Starting")

        async def told() -> str | None:
            async with aiohttp.ClientSession() as session, session.get(f"{process.url}/readyz") as answer:
                text = await answer.text()
                return text if answer.status == 200 and "namespace" in text else None

        text = await eventually_seen("the namespace in /readyz", told)
        assert f"namespace gone-{namespace}: " in text
        assert "is forbidden" in text
        await end_pod(world.admin, await world.pod("job-train-1"))
        await world.phase("job", "Succeeded")


async def test_a_wrong_environment_is_reported_whole(plane: Plane, namespace: str, tmp_path: Path) -> None:
    with operator(plane, tmp_path, namespace, FINETUNE_WORKERS="many", FINETUNE_TRAINER_IMAGE="") as process:
        code = await asyncio.to_thread(process.popen.wait, 30)
        assert code == 2
        said = process.log.read_text().splitlines()
        assert [line.split(":")[0] for line in said] == ["FINETUNE_TRAINER_IMAGE", "FINETUNE_WORKERS"]
