"""Many jobs report their progress. Measures how old the progress in the status is, and what it costs.

The reporters use the operator's server as the trainer does: one connection per report, and a real token that
TokenRequest has bound to the job's real pod. So the operator's TokenReviews are real too.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from benchmarks.api_client import Api
from benchmarks.jobs import JobWatch, create, warm_up
from benchmarks.tables import Table, load, percentile
from benchmarks.testbed import OPERATOR, Testbed, testbed

from finetune_operator.api import names
from finetune_trainer.contract.progress import Progress, ProgressReport, Stage
from localcluster import Write
from localcluster.control_plane import API_SERVER

INTERVAL_SECONDS = 5.0
_RAMP_SECONDS = 20.0
"""Seconds of reports before the measurement, in which each job has its first two writes."""


@dataclass(frozen=True)
class Reporter:
    """The reporter of one pod."""

    url: str
    token: str


class Answers:
    """The answers that the reporters got."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._statuses: Counter[str] = Counter()

    def take(self, status: str, seconds: float) -> None:
        """Records one answer, or the name of the exception."""
        self.seconds.append(seconds)
        self._statuses[status] += 1

    def clear(self) -> None:
        """Forgets all answers."""
        self.seconds.clear()
        self._statuses.clear()

    def others(self) -> str:
        """Returns the number of answers other than 200, by status."""
        return ", ".join(f"{count} x {status}" for status, count in self._statuses.items() if status != "200") or "0"


def measure(jobs: int, seconds: float) -> Table:
    """Lets a number of jobs report every five seconds."""
    table = Table(
        f"Jobs that report every {INTERVAL_SECONDS:.0f} s, for {seconds:.0f} s",
        (
            "jobs",
            "load",
            "age of what the status shows: p50, s",
            "p99, s (bar 15 with 500)",
            "oldest, s",
            "status writes /s (bar 50)",
            "reports /s",
            "answers other than 200",
            "report p99, ms",
            "operator CPU, cores",
            "API server CPU, cores",
        ),
        note="Age is the time since the trainer made the record that a watch of the FineTuneJob shows, sampled each "
        "second for every job.",
    )
    table.rows.append(asyncio.run(_measure(jobs, seconds)))
    return table


async def _measure(jobs: int, seconds: float) -> tuple[str, ...]:
    with testbed() as bed:
        log = bed.cluster.audit.path
        bed.start_operator()
        bed.start_standin()
        await warm_up(bed)
        bed.stop_standin()
        bed.start_standin(leave_running=True)
        namespace = bed.namespace()
        async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
            await create(api, namespace, jobs, preflight=False)
            await watch.until("pods that run", watch.running, jobs)
            reporters = await _reporters(bed, api, namespace)
            before = load()
            generate_answers = Answers()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session:
                tasks = [asyncio.create_task(_report(session, reporter, generate_answers)) for reporter in reporters]
                await asyncio.sleep(_RAMP_SECONDS)
                generate_answers.clear()
                cpu, mark, start = bed.cpu_seconds(), log.stat().st_size, time.monotonic()
                ages = await _ages(watch, jobs, seconds)
                took = time.monotonic() - start
                used = {name: (now - cpu[name]) / took for name, now in bed.cpu_seconds().items()}
                written = _progress_writes(log, mark)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    return (
        f"{jobs:,}",
        before,
        f"{percentile(ages, 50):.1f}",
        f"{percentile(ages, 99):.1f}",
        f"{max(ages):.1f}",
        f"{written / took:.1f}",
        f"{len(generate_answers.seconds) / took:.0f}",
        generate_answers.others(),
        f"{percentile(generate_answers.seconds, 99) * 1000:.0f}",
        f"{used[OPERATOR]:.2f}",
        f"{used[API_SERVER]:.2f}",
    )


async def _reporters(bed: Testbed, api: Api, namespace: str) -> list[Reporter]:
    """Returns a reporter for each pod of the namespace."""
    pods, _ = await api.list(f"/api/v1/namespaces/{namespace}/pods")
    reporters: list[Reporter] = []
    left = iter(pods)

    async def worker() -> None:
        for pod in left:
            labels = pod["metadata"]["labels"]
            uid = labels[names.FINETUNEJOB_UID_LABEL]
            url = f"{bed.url}/v1/jobs/{namespace}/{labels[names.FINETUNEJOB_NAME_LABEL]}/{uid}/progress"
            reporters.append(Reporter(url, await _token(api, pod, names.progress_audience(uid))))

    await asyncio.gather(*(worker() for _ in range(8)))
    return reporters


async def _token(api: Api, pod: Mapping[str, Any], audience: str) -> str:
    """Returns a token like the one that the kubelet projects into the pod."""
    metadata = pod["metadata"]
    answer = await api.request(
        "POST",
        f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/default/token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience],
                "expirationSeconds": 3600,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]},
            },
        },
    )
    token: str = answer["status"]["token"]
    return token


async def _report(session: aiohttp.ClientSession, reporter: Reporter, generate_answers: Answers) -> None:
    """Reports every five seconds, from a random moment on, until it is cancelled."""
    loop = asyncio.get_running_loop()
    due = loop.time() + random.uniform(0, INTERVAL_SECONDS)
    headers = {"Authorization": f"Bearer {reporter.token}", "Content-Type": "application/json"}
    step = 0
    while True:
        await asyncio.sleep(due - loop.time())
        due += INTERVAL_SECONDS
        step += 1
        record = Progress(
            stage=Stage.TRAINING,
            step=step,
            total_steps=500,
            epoch=step / 100,
            loss=2.0 - step / 1000,
            learning_rate=2e-4,
            tokens_per_second=12_500.0,
            eta_seconds=5 * (500 - step),
            heartbeat_time=datetime.now(UTC),
        )
        start = loop.time()
        try:
            async with session.post(
                reporter.url, data=ProgressReport(progress=record).to_json(), headers=headers
            ) as answer:
                await answer.read()
                status = str(answer.status)
        except aiohttp.ClientError as error:
            status = type(error).__name__
        generate_answers.take(status, loop.time() - start)


async def _ages(watch: JobWatch, jobs: int, seconds: float) -> list[float]:
    """Returns the age of every job's progress in seconds, read once a second."""
    ages = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(1)
        now = datetime.now(UTC)
        ages += [(now - datetime.fromisoformat(at)).total_seconds() for at in watch.heartbeat.values()]
    if len(watch.heartbeat) < jobs:
        raise TimeoutError(f"of {jobs} jobs only {len(watch.heartbeat)} show progress")
    return ages


def _progress_writes(log: Path, since: int) -> int:
    """Counts the writes of progress after a mark in the audit log.

    Does not wait until the log is quiet, because here it never is.
    """
    with log.open("rb") as lines:
        lines.seek(since)
        whole = (line.decode() for line in lines if line.endswith(b"\n"))
        return sum(Write.parse(line).field_manager == names.PROGRESS_FIELD_MANAGER for line in whole)
