"""The load: creates FineTuneJobs and watches them as a user would."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from benchmarks.api_client import FINETUNEJOBS, JOBS, Api, ApiError
from benchmarks.testbed import Testbed

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase

LIMIT_SECONDS = 1800.0


def a_job(name: str, *, preflight: bool) -> dict[str, Any]:
    """Returns the smallest FineTuneJob."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
            "dataset": {"uri": f"s3://data/{name}/train.jsonl"},
            "output": {"uri": "s3://models/adapters"},
            "preflight": {"enabled": preflight},
        },
    }


async def create(api: Api, namespace: str, count: int, *, preflight: bool, prefix: str = "job") -> None:
    """Creates a number of jobs as fast as the API server accepts them."""
    path = FINETUNEJOBS.replace("/finetunejobs", f"/namespaces/{namespace}/finetunejobs")
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await api.request("POST", path, a_job(f"{prefix}-{number}", preflight=preflight))

    await asyncio.gather(*(worker() for _ in range(min(16, count))))


class JobWatch:
    """Watches the FineTuneJobs of one namespace. All times are of `time.monotonic`, in seconds.

    Attributes:
        child: FineTuneJob's name -> time of its first child Job.
        running: name -> time at which it trained.
        ended: name -> time at which it succeeded.
        heartbeat: name -> heartbeat of the progress in the status.
    """

    def __init__(self, testbed: Testbed, api: Api, namespace: str) -> None:
        self.child: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.heartbeat: dict[str, str] = {}
        self._testbed = testbed
        self._api = api
        self._namespace = namespace
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for collection, take in ((FINETUNEJOBS, self._finetunejob), (JOBS, self._job)):
            base, _, plural = collection.rpartition("/")
            path = f"{base}/namespaces/{self._namespace}/{plural}"
            _, version = await self._api.list(path)
            opened = asyncio.Event()
            task = asyncio.create_task(self._watch(path, version, take, opened.set))
            self._tasks.append(task)
            opening = asyncio.create_task(opened.wait())
            await asyncio.wait([opening, task], return_when=asyncio.FIRST_COMPLETED)
            if not opened.is_set():
                opening.cancel()
                task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, what: str, seen: Mapping[str, float], count: int) -> float:
        """Waits until one of the attributes has a number of entries. Returns the time at which it had.

        Raises:
            ClusterError: a program has ended.
            TimeoutError: the time limit has passed.
        """
        deadline = time.monotonic() + LIMIT_SECONDS
        while len(seen) < count:
            self._changed.clear()
            try:
                async with asyncio.timeout(5):
                    await self._changed.wait()
            except TimeoutError:
                self._testbed.check()
                for task in self._tasks:
                    if task.done():
                        task.result()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{what}: {len(seen)} of {count} after {LIMIT_SECONDS:.0f} s") from None
        return max(seen.values())

    async def _watch(
        self, path: str, version: str, take: Callable[[Mapping[str, Any]], None], opened: Callable[[], None]
    ) -> None:
        while True:
            # The server ends the watch of a client that reads too slowly. Then the client lists and watches again.
            with contextlib.suppress(ApiError):
                async for event in self._api.watch(path, version, opened):
                    take(event["object"])
                    self._changed.set()
            items, version = await self._api.list(path)
            for raw in items:
                take(raw)
            self._changed.set()

    def _job(self, raw: Mapping[str, Any]) -> None:
        owner = raw["metadata"].get("labels", {}).get(names.FINETUNEJOB_NAME_LABEL)
        if owner is not None:
            self.child.setdefault(owner, time.monotonic())

    def _finetunejob(self, raw: Mapping[str, Any]) -> None:
        name, status = raw["metadata"]["name"], raw.get("status") or {}
        if (at := (status.get("progress") or {}).get("heartbeatTime")) is not None:
            self.heartbeat[name] = at
        if status.get("phase") == Phase.RUNNING:
            self.running.setdefault(name, time.monotonic())
        if name not in self.ended and any(
            item["type"] == ConditionType.SUCCEEDED and item["status"] == "True"
            for item in status.get("conditions") or ()
        ):
            self.ended[name] = time.monotonic()


async def warm_up(testbed: Testbed) -> None:
    """Runs one job to its end, to know that operator and stand-in work."""
    namespace = testbed.namespace()
    async with testbed.api() as api, JobWatch(testbed, api, namespace) as watch:
        await create(api, namespace, 1, preflight=True)
        await watch.until("the first job to end", watch.ended, 1)
