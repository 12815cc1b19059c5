"""Progress reports over real HTTP with real tokens, on a leader with a cache and on a standby without."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from component.plane import Plane, a_finetunejob, eventually_seen
from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef, parse_job
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.resync import Resync
from finetune_operator.control.progress_cluster import KubeProgressCluster
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS, Resource
from finetune_operator.kube.client import ClientKube
from finetune_operator.progress.server import MAX_BODY_BYTES, ProgressServer
from finetune_operator.progress.writer import ProgressWriter
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.manifests import child_job
from finetune_trainer.contract.progress import Progress, ProgressReport, Stage

CONFIG = ReconcileConfig(preflight_image="operator:1", trainer_image="trainer:1")
NOW = datetime.now(UTC).replace(microsecond=0)
OTHER_UID = "00000000-0000-4000-8000-000000000000"
PODS_TOKEN = Resource(group="", version="v1", plural="serviceaccounts")


@dataclass
class Site:
    """One job with one pod, and a server that takes its reports."""

    admin: ClientKube
    url: str
    session: aiohttp.ClientSession
    ref: FineTuneJobRef
    pod: dict[str, Any]
    resync: Resync

    async def token(self, *, audience: str | None = None, pod: dict[str, Any] | None = None) -> str:
        """A token as the kubelet projects it into the pod."""
        bound = (pod or self.pod)["metadata"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience or names.progress_audience(self.ref.uid)],
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": bound["name"], "uid": bound["uid"]},
            },
        }
        answer = await self.admin._request(
            "POST", PODS_TOKEN.path(bound["namespace"], "default", "token"), body=request
        )
        token: str = answer["status"]["token"]
        return token

    async def post(
        self, token: str | None, body: ProgressReport | bytes | None = None, ref: FineTuneJobRef | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Sends a report; the answer's status and body."""
        ref = ref or self.ref
        report = ProgressReport(progress=Progress(stage=Stage.TRAINING, step=1, heartbeat_time=NOW))
        if body is None:
            body = report
        data = body.to_json().encode() if isinstance(body, ProgressReport) else body
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"{self.url}/v1/jobs/{ref.namespace}/{ref.name}/{ref.uid}/progress"
        async with self.session.post(url, data=data, headers=headers) as response:
            return response.status, await response.json()

    async def shown(self) -> dict[str, Any]:
        """`status.progress` as it is now."""
        raw = await self.admin.get(FINETUNEJOBS, self.ref.namespace, self.ref.name)
        found: dict[str, Any] = raw["status"].get("progress", {})
        return found

    async def set_status(self, **status: Any) -> None:
        """Writes the status as the controller would."""
        await self.admin.merge(
            FINETUNEJOBS,
            self.ref.namespace,
            self.ref.name,
            {"status": status},
            field_manager=names.FIELD_MANAGER,
            subresource="status",
        )
        await self.resync.once()


@pytest.fixture(params=["leader", "standby"])
async def site(
    request: pytest.FixtureRequest, plane: Plane, kube: ClientKube, admin: ClientKube, namespace: str
) -> AsyncIterator[Site]:
    clock = asyncio.get_running_loop().time
    raw = await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    await admin.apply(JOBS, child_job(parse_job(raw), CONFIG, names.TRAIN_ROLE, 1))
    pod = await eventually_seen("the pod", lambda: a_pod(admin, namespace))
    leader = request.param == "leader"
    cache = Cache()
    queue: WorkQueue[Key] = WorkQueue(clock=clock, random=lambda: 0.0)
    event_handler = EventHandler(cache, queue)
    resync = Resync(
        kube=kube,
        cache=cache,
        queue=queue,
        event_handler=event_handler,
        namespace=namespace,
        period=300,
        clock=clock,
    )
    cluster = KubeProgressCluster(kube, cache, event_handler, is_watching=lambda _: leader, clock=clock)
    writer = ProgressWriter(cluster, clock=clock)
    application = web.Application()
    server = ProgressServer(cluster, writer, own_token=plane.operator_token, clock=clock, now=lambda: datetime.now(UTC))
    server.add_to(application)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    writing = asyncio.create_task(writer.run())
    ref = FineTuneJobRef(namespace=namespace, name="job", uid=raw["metadata"]["uid"])
    async with aiohttp.ClientSession() as session:
        reporting = Site(admin, f"http://{host}:{port}", session, ref, pod, resync)
        await reporting.set_status(observedGeneration=1, attempt=1, phase="Running")
        yield reporting
    writing.cancel()
    await asyncio.wait([writing])
    await runner.cleanup()


async def a_pod(kube: ClientKube, namespace: str, prefix: str = "job-") -> dict[str, Any] | None:
    pages = [page async for page in kube.pages(PODS, namespace)]
    return next((item for page in pages for item in page.items if item["metadata"]["name"].startswith(prefix)), None)


def a_report(step: int, **fields: Any) -> ProgressReport:
    record = Progress(
        stage=Stage.TRAINING, step=step, total_steps=10, heartbeat_time=NOW + timedelta(seconds=step), **fields
    )
    return ProgressReport(progress=record)


async def test_the_pods_report_reaches_the_status(site: Site) -> None:
    token = await site.token()
    assert await site.post(token, a_report(3, loss=1.5)) == (200, {"status": "ok"})

    async def shown() -> bool | None:
        return bool(await site.shown())

    await eventually_seen("progress in the status", shown)
    progress = await site.shown()
    assert (progress["step"], progress["display"], progress["loss"]) == (3, "30% 3/10", "1.5000")


async def test_an_unmodified_trl_callback_is_understood(site: Site) -> None:
    body = {
        "trainerStatus": {
            "progressPercentage": 40,
            "estimatedRemainingSeconds": 7,
            "metrics": [{"name": "loss", "value": "2.5"}],
            "lastUpdatedTime": NOW.isoformat(),
        }
    }
    assert (await site.post(await site.token(), json.dumps(body).encode()))[0] == 200

    async def shown() -> dict[str, Any] | None:
        return await site.shown()

    progress = await eventually_seen("progress in the status", shown)
    assert (progress["percent"], progress["etaSeconds"], progress["loss"]) == (40, 7, "2.5000")


async def test_who_may_not_report(site: Site, admin: ClientKube) -> None:
    token = await site.token()
    assert (await site.post(None))[0] == 401
    assert (await site.post("nonsense"))[0] == 401
    forgery = (401, {"error": "the token is not signed by this cluster"})
    assert await site.post(token[:-8] + "AAAAAAAA") == forgery, "the cluster's real keys tell, without a TokenReview"
    assert (await site.post(await site.token(audience="https://kubernetes.default.svc")))[0] == 403
    assert (await site.post(token, ref=replace(site.ref, uid=OTHER_UID)))[0] == 403
    assert (await site.post(token, ref=replace(site.ref, name="other")))[0] == 404

    # A pod that somebody made with our labels and a token of the right audience, but without the Job.
    metadata = site.pod["metadata"]
    forged = await admin.create(
        PODS,
        site.ref.namespace,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": site.ref.namespace, "name": "forged", "labels": metadata["labels"]},
            "spec": {"containers": [{"name": "main", "image": "image"}]},
        },
    )
    assert (await site.post(await site.token(pod=forged)))[0] == 403
    assert await site.shown() == {}


@pytest.mark.parametrize(
    "path",
    [
        "{namespace}/..%2F..%2F{other}%2Ffinetunejobs%2Fjob/{uid}/progress",
        "{namespace}/..%2Fpods%2F{pod}/{uid}/progress",
        "..%2F..%2F..%2F..%2Fapi%2Fv1%2Fpods/job/{uid}/progress",
        "{namespace}/%2E%2E/{uid}/progress",
        "{namespace}/job%3Fwatch=1/{uid}/progress",
        "{namespace}/job/{uid}%2F..%2F..%2Fx/progress",
        "{namespace}/Job/{uid}/progress",
        "{namespace}/job/not-a-uid/progress",
    ],
)
async def test_a_path_never_leads_out_of_the_jobs_own(
    site: Site, plane: Plane, admin: ClientKube, namespace: str, path: str
) -> None:
    """The review's attack: a pod's real token, and names that would climb to another namespace's job."""
    other = f"{namespace}-victim"
    plane.kubectl("create", "namespace", other)
    await admin.create(FINETUNEJOBS, other, a_finetunejob(other))
    filled = path.format(namespace=namespace, other=other, uid=site.ref.uid, pod=site.pod["metadata"]["name"])
    url = URL(f"{site.url}/v1/jobs/{filled}", encoded=True)
    headers = {"Authorization": f"Bearer {await site.token()}"}
    async with site.session.post(url, data=a_report(3).to_json(), headers=headers) as response:
        assert response.status == 404
    assert "progress" not in (await admin.get(FINETUNEJOBS, other, "job"))["status"]
    assert await site.shown() == {}
    plane.kubectl("delete", "namespace", other, "--wait=false")


async def test_what_is_no_report(site: Site) -> None:
    token = await site.token()
    status, body = await site.post(token, b'{"progress": {"step": -1, "percent": "x"}}')
    assert status == 400
    assert "progress.step" in body["error"]
    assert "progress.percent" in body["error"]
    assert (await site.post(token, b"not json"))[0] == 400
    future = ProgressReport(progress=Progress(stage=Stage.TRAINING, heartbeat_time=NOW + timedelta(days=1)))
    status, body = await site.post(token, future)
    assert (status, "is in the future" in body["error"]) == (400, True)
    status, body = await site.post(token, b'{"progress": {"heartbeatTime": "2026-01-01T00:00:00"}}')
    assert (status, "should have timezone info" in body["error"]) == (400, True)
    assert (await site.post(token, b"[" * 60_000))[0] == 400
    assert (await site.post(token, b" " * (MAX_BODY_BYTES + 1)))[0] == 413


async def test_an_end_and_a_later_attempt_refuse_reports(site: Site) -> None:
    token = await site.token()
    await site.set_status(attempt=2)
    assert (await site.post(token))[0] in (200, 409)  # a standby may have read the status a moment ago
    await eventually_answered(site, token, 409)
    condition = {
        "type": "Finished",
        "status": "True",
        "reason": "TrainingSucceeded",
        "message": "",
        "lastTransitionTime": NOW.isoformat(),
    }
    await site.set_status(conditions=[condition], progress={"percent": 100})
    await eventually_answered(site, token, 410)
    assert await site.shown() == {"percent": 100}, "nothing late was written over the last record"


async def eventually_answered(site: Site, token: str, status: int) -> None:
    async def answered() -> bool | None:
        await asyncio.sleep(0.5)  # less often than the limit of a job
        return (await site.post(token))[0] == status

    await eventually_seen(f"the answer {status}", answered)


async def test_too_many_reports_get_429(site: Site) -> None:
    token = await site.token()
    answers = [(await site.post(token))[0] for _ in range(40)]
    assert answers[:20] == [200] * 20
    assert 429 in answers[20:]


async def test_many_reports_are_few_writes_and_the_last_one_counts(site: Site, plane: Plane) -> None:
    token = await site.token()
    mark = plane.mark()
    for step in range(1, 11):
        assert (await site.post(token, a_report(step)))[0] == 200

    async def last() -> bool | None:
        return (await site.shown()).get("step") == 10

    await eventually_seen("the last record", last)
    assert len(plane.operator_writes(mark, site.ref.namespace)) == 2
