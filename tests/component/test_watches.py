"""kopf as the watch layer: what reaches the event_handler, and what happens when kopf gives up."""

import asyncio
import contextlib
import gc
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import kopf
import pytest

from component.plane import Plane, a_finetunejob, eventually
from finetune_operator.api import names
from finetune_operator.api.finetunejob import parse_job
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.resync import CHILDREN
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import FINETUNEJOBS, JOBS
from finetune_operator.kube.client import ClientKube
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.watch.kopf_settings import NoMemories, kopf_settings
from finetune_operator.watch.watches import Watches

pytestmark = [
    # kopf does not close its connections when it gives up.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

CONFIG = ReconcileConfig(preflight_image="operator:1", trainer_image="trainer:1")


class Watching:
    """The watches, delivering into a cache."""

    def __init__(self, plane: Plane, namespace: str, settings: Callable[[], kopf.OperatorSettings]) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(clock=asyncio.get_running_loop().time, random=lambda: 0.0)
        self.misses = 0
        self.watches = Watches(
            EventHandler(self.cache, self.queue),
            on_restart=self._on_restart,
            settings=settings,
            memories=NoMemories,
            backoffs=lambda: itertools.repeat(0.2),
            namespace=namespace,
            environment={"KUBECONFIG": str(plane.operator_kubeconfig())},
        )

    def _on_restart(self) -> None:
        self.misses += 1

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watches.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            # kopf's thread ends later; two threads that import at a time break pytest's import hook.
            for thread in threading.enumerate():
                if thread.name == "kopf":
                    await asyncio.to_thread(thread.join, 60)


@pytest.fixture(autouse=True)
def _surroundings(plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """kopf's login reads the environment of the process; its log would keep what it leaves open alive."""
    monkeypatch.setenv("KUBECONFIG", str(plane.operator_kubeconfig()))
    for name in ("kopf", "asyncio"):
        caplog.set_level(logging.CRITICAL + 1, logger=name)
    yield
    gc.collect()  # what kopf leaves open when it gives up is found here, where it is expected


async def test_the_objects_of_all_three_kinds_arrive_and_foreign_ones_do_not(
    plane: Plane, admin: ClientKube, namespace: str
) -> None:
    delivered: list[str] = []

    class Listening(EventHandler):
        def job(self, type_: str | None, raw: Any) -> None:
            delivered.append(raw["metadata"]["name"])
            super().job(type_, raw)

    watching = Watching(plane, namespace, lambda: kopf_settings(children=CHILDREN))
    watching.watches._event_handler = Listening(watching.cache, watching.queue)
    raw = await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    uid = raw["metadata"]["uid"]
    foreign = child_job(parse_job(raw), CONFIG, names.TRAIN_ROLE, 7)
    foreign["metadata"]["labels"] = {"app": "foreign"}
    await admin.create(JOBS, namespace, foreign)
    async with watching.running():
        await eventually("the listed job", lambda: watching.cache.finetunejob((namespace, "job")))
        await admin.apply(JOBS, child_job(parse_job(raw), CONFIG, names.TRAIN_ROLE, 1))

        def seen() -> bool:
            observed = watching.cache.observed((namespace, uid))
            return observed is not None and bool(observed.jobs and observed.pods)

        await eventually("the child and its pod", seen)
        assert set(delivered) == {"job-train-1"}
        raw = await admin.get(FINETUNEJOBS, namespace, "job")
        assert "kopf" not in str(raw["metadata"])
        await admin.delete(FINETUNEJOBS, namespace, "job", uid=uid)
        await eventually("the deletion", lambda: watching.cache.finetunejob((namespace, "job")) is None)


async def test_kopf_is_started_again_when_it_gives_up(plane: Plane, admin: ClientKube, namespace: str) -> None:
    def impatient() -> kopf.OperatorSettings:
        settings = kopf_settings(children=CHILDREN)
        settings.networking.error_backoffs = [0.1]
        return settings

    watching = Watching(plane, namespace, impatient)
    with plane.may_only_list(namespace):
        async with watching.running():
            await eventually("two new starts", lambda: watching.misses >= 2)
            plane.grant()
            await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
            await eventually("the job", lambda: watching.cache.finetunejob((namespace, "job")))
            starts = watching.misses
            await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, "later"))
            await eventually("the later job", lambda: watching.cache.finetunejob((namespace, "later")))
            assert watching.misses == starts, "it runs for good again"
