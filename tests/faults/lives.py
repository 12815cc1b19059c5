"""Whole lives of a FineTuneJob: what a user, a kubelet and a trainer do, each waiting for what the operator does.

A life waits for every state before it goes on, so the operator's writes come in one order whatever is injected.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from faults.site import Site
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.errors import NotFound
from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.termination import Outcome, Termination


@dataclass(frozen=True, kw_only=True)
class Life:
    """A life.

    Attributes:
        name: in a table.
        course: plays it, until its end is in the status.
    """

    name: str
    course: Callable[[Site], Awaitable[None]]

    def __str__(self) -> str:
        """Its name."""
        return self.name


def _failed(reason: FailureReason) -> Termination:
    return Termination(outcome=Outcome.FAILED, reason=reason, message="as the life wants it")


_RETRY: dict[str, Any] = {"retry": {"backoffSeconds": 1}}


async def _train(site: Site, attempt: int, *, exit_code: int = 0, ended: Termination | None = None) -> None:
    """One attempt on one pod, seen Running before it ends."""
    pod = await site.pod(f"job-train-{attempt}")
    await site.run(pod)
    await site.phase("Running", attempt=attempt)
    await site.end(pod, ended, exit_code)


async def _success(site: Site) -> None:
    await site.create()
    await _train(site, 1)
    await site.phase("Succeeded")


async def _preflight(site: Site) -> None:
    await site.create(preflight={"enabled": True})
    await site.pass_preflight(await site.pod("job-preflight-1"))
    pod = await site.pod("job-train-1")
    await site.run(pod)
    await site.phase("Running")
    await site.report(pod, 3)
    await site.end(pod)
    await site.phase("Succeeded")


async def _suspension(site: Site) -> None:
    await site.create(**_RETRY)
    await site.run(await site.pod("job-train-1"))
    await site.phase("Running", attempt=1)
    await site.change(suspend=True)
    await site.backed_off()
    await site.change(suspend=False)
    await _train(site, 2)
    await site.phase("Succeeded")


async def _disruption(site: Site) -> None:
    await site.create(**_RETRY)
    first = await site.pod("job-train-1")
    await site.run(first)
    await site.phase("Running", attempt=1)
    await site.disrupt(first)  # its Job replaces it
    second = await site.pod("job-train-1", without=(first["metadata"]["uid"],))
    await site.phase("Starting", attempt=1)
    await site.run(second)

    async def moved() -> bool:
        shown: str = (await site.status()).get("podName", "")
        return shown == str(second["metadata"]["name"])

    await site.until("the second pod in the status", moved)
    await site.end(second, _failed(FailureReason.PREEMPTED), ExitCode.PREEMPTED)
    await _train(site, 2)
    await site.phase("Succeeded")


async def _retries(site: Site) -> None:
    await site.create(**_RETRY)
    await _train(site, 1, ended=_failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=ExitCode.STORAGE_UNAVAILABLE)
    await _train(site, 2, ended=_failed(FailureReason.INTERNAL), exit_code=137)
    await _train(site, 3)  # the Job of the first attempt is deleted
    await site.phase("Succeeded")


async def _failure(site: Site) -> None:
    await site.create(retention={"ttlSecondsAfterFinished": 1})
    await _train(site, 1, ended=_failed(FailureReason.DATASET_INVALID), exit_code=ExitCode.DATASET_INVALID)
    await site.phase("Failed")

    async def expired() -> bool:
        return not await site.jobs()

    await site.until("the children to expire", expired)


async def _deletion(site: Site) -> None:
    raw = await site.create(preflight={"enabled": True})
    await site.pass_preflight(await site.pod("job-preflight-1"))
    await site.run(await site.pod("job-train-1"))
    await site.phase("Running")
    await site.admin.delete(FINETUNEJOBS, site.namespace, "job", uid=raw["metadata"]["uid"])

    async def gone() -> bool:
        return not await site.left()

    await site.until("the children to be collected", gone)


async def _rerun(site: Site) -> None:
    await site.create()
    await _train(site, 1)
    await site.phase("Succeeded", attempt=1)
    await site.change(runToken="again")
    await _train(site, 2)
    await site.phase("Succeeded", attempt=2)


async def _nodes(site: Site) -> None:
    await site.create(resources={"nodes": 2}, **_RETRY)
    first, second = await site.pods("job-train-1", 2)
    await site.run(first)
    await site.run(second)
    await site.phase("Running", attempt=1)
    await site.end(second, _failed(FailureReason.STORAGE_UNAVAILABLE), ExitCode.STORAGE_UNAVAILABLE)
    with suppress(NotFound):  # its Job has deleted it already
        await site.end(first, _failed(FailureReason.PEER_FAILED), ExitCode.PEER_FAILED)
    first, second = await site.pods("job-train-2", 2)
    await site.run(first)
    await site.run(second)
    await site.phase("Running", attempt=2)
    await site.end(second)
    await site.end(first)
    await site.phase("Succeeded")


async def _sidecars(site: Site) -> None:
    await site.create(preflight={"enabled": True}, **_RETRY)
    await site.pass_preflight(await site.pod("job-preflight-1"), sidecar=True)
    pod = await site.pod("job-train-1")
    await site.run(pod)
    await site.phase("Running", attempt=1)
    await site.end(pod, _failed(FailureReason.STORAGE_UNAVAILABLE), ExitCode.STORAGE_UNAVAILABLE, sidecar=True)
    pod = await site.pod("job-train-2")
    await site.run(pod)
    await site.phase("Running", attempt=2)
    await site.end(pod)
    await site.phase("Succeeded")


async def everything(site: Site) -> None:
    """Makes every request that the operator knows: preflight, reports, two suspensions, a failure, two nodes.

    Its milestones are `running`, when the second attempt trains, and `end`, before the last pod ends.
    """
    await site.create(preflight={"enabled": True}, resources={"nodes": 2}, **_RETRY)
    await site.pass_preflight(await site.pod("job-preflight-1"))
    for attempt in (1, 2):
        pods = await site.pods(f"job-train-{attempt}", 2)
        for pod in pods:
            await site.run(pod)
        await site.phase("Running", attempt=attempt)
        if attempt == 2:
            site.reached("running")
        await site.report(pods[0], attempt)
        await site.change(suspend=True)
        await site.backed_off()
        await site.change(suspend=False)
    first, second = await site.pods("job-train-3", 2)
    await site.run(first)
    await site.run(second)
    await site.phase("Running", attempt=3)
    site.reached("end")
    await site.end(second)
    await site.end(first)
    await site.phase("Succeeded")


LIVES = (
    Life(name="success", course=_success),
    Life(name="preflight, training, a report", course=_preflight),
    Life(name="suspended and resumed", course=_suspension),
    Life(name="disrupted twice", course=_disruption),
    Life(name="two retryable failures", course=_retries),
    Life(name="failure, and the TTL of children", course=_failure),
    Life(name="deleted while it trains", course=_deletion),
    Life(name="run again by runToken", course=_rerun),
    Life(name="two nodes, one fails", course=_nodes),
    Life(name="beside sidecars that stay", course=_sidecars),
)
