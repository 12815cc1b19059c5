"""Where the attacks happen: a tenant's own namespace, a victim's, and an operator that looks when a test says so.

The operator is the real one (policy, controller, cache, progress server) with the rights of its account, and everybody
talks to a real API server. There is no watch: so a test knows what the operator has seen.
"""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from component.plane import a_finetunejob, end_pod, eventually_seen
from component.tenants.ground import CountingCluster, Ground
from finetune_operator.api import names
from finetune_operator.api.finetunejob import parse_job
from finetune_operator.control import Key
from finetune_operator.control.controller import Controller
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.resync import Resync
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS, Resource
from finetune_operator.kube.client import ClientKube
from finetune_operator.kube.errors import Forbidden, Invalid, NotFound
from finetune_operator.kube.events import EventRecorder
from finetune_operator.listener import Listener
from finetune_operator.progress.server import ProgressServer
from finetune_operator.progress.writer import ProgressWriter
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.reconcile.reconcile import reconcile
from finetune_trainer.contract.progress import Progress, ProgressReport, Stage
from finetune_trainer.contract.termination import Outcome, OutputRecord, Termination

Object = dict[str, Any]

CONFIG = ReconcileConfig(
    preflight_image="operator:1", trainer_image="trainer:1", progress_url="http://operator.finetune-system.svc"
)
EVIL_OUTPUT = OutputRecord(
    uri="s3://evil/adapter",
    manifest_uri="s3://evil/manifest.json",
    digest="sha256:00",
    size_bytes=1,
    base_model="org/model",
    rank=16,
)
FORGED_SUCCESS = Termination(outcome=Outcome.SUCCEEDED, fingerprint="0" * 12, output=EVIL_OUTPUT)
EVIL_STEP = 666
SERVICE_ACCOUNTS = Resource(group="", version="v1", plural="serviceaccounts")


class Site:
    """One attack: jobs of one name in both namespaces, and a new operator that knows nothing yet.

    Args:
        name: of the attack's FineTuneJobs.
        kube, admin, tenant: the API server with the rights of the operator, of an administrator, of the tenant.
    """

    def __init__(self, ground: Ground, name: str, *, kube: ClientKube, admin: ClientKube, tenant: ClientKube) -> None:
        self.ground = ground
        self.attacker, self.victim, self.name = ground.attacker, ground.victim, name
        self.kube, self.admin, self.tenant = kube, admin, tenant
        clock = asyncio.get_running_loop().time
        self._clock = clock
        self.cache = Cache()
        self._queue: WorkQueue[Key] = WorkQueue(clock=clock, random=lambda: 0.0)
        self._event_handler = EventHandler(self.cache, self._queue)
        self._resync = Resync(
            kube=kube,
            cache=self.cache,
            queue=self._queue,
            event_handler=self._event_handler,
            namespace=None,
            period=300,
            clock=clock,
        )
        self._controller = Controller(
            kube=kube,
            cache=self.cache,
            queue=self._queue,
            policy=reconcile,
            config=CONFIG,
            events=EventRecorder(kube, instance="test", now=_now),
            now=_now,
        )
        self.progress = CountingCluster(kube, self.cache, self._event_handler, is_watching=lambda _: False, clock=clock)
        self._writer = ProgressWriter(self.progress, clock=clock)
        self._writing: asyncio.Task[None] | None = None
        self._listener: Listener | None = None
        self._url = ""

    # What the operator does.

    async def look(self) -> None:
        """The operator lists everything, and reconciles this attack's jobs."""
        await self._resync.once()
        await self.reconcile()

    async def sees(self, job: Object, pod: Object) -> None:
        """The operator's watches bring a Job and a pod, before anybody can remove them."""
        self._event_handler.job("ADDED", job)
        self._event_handler.pod("ADDED", pod)
        await self.reconcile()

    async def reconcile(self) -> None:
        """The operator reconciles until nothing is left to do."""
        while (key := self._queue.get_nowait()) is not None:
            if key[0] in (self.attacker, self.victim) and key[1].startswith(self.name):
                await self._controller._handle(key)
            else:
                self._queue.done(key)

    async def flush(self) -> None:
        """The operator writes every report that it has accepted."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
            self._writing = None

    async def close(self) -> None:
        """Ends the progress server."""
        await self.flush()
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    # What a user, a kubelet and the tenant do.

    async def create(self, namespace: str, **spec: Any) -> Object:
        """A FineTuneJob: the tenant's own, or the victim's.

        Raises:
            Invalid: the API server refuses it.
        """
        user = self.tenant if namespace == self.attacker else self.admin
        return await user.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, self.name, **spec))

    async def begin(self, namespace: str, **spec: Any) -> Object:
        """A FineTuneJob whose first attempt has begun."""
        await self.create(namespace, **spec)
        await self.look()
        return await self.finetunejob(namespace)

    async def finetunejob(self, namespace: str) -> Object:
        """The FineTuneJob as it is now."""
        return await self.admin.get(FINETUNEJOBS, namespace, self.name)

    async def status(self, namespace: str) -> Object:
        """Its status."""
        found: Object = (await self.finetunejob(namespace)).get("status") or {}
        return found

    async def child_spec(self, **spec: Any) -> Object | None:
        """The pod spec and metadata that the operator makes of the tenant's spec; None if it or the server refuses."""
        try:
            raw = await self.begin(self.attacker, **spec)
        except Invalid:
            return None
        return await self.child_template(raw)

    async def child_template(self, finetunejob: Object) -> Object | None:
        """The pod template of the current child; None if there is no child."""
        name = finetunejob["status"].get("jobName")
        if name is None:
            return None
        found: Object = (await self.admin.get(JOBS, finetunejob["metadata"]["namespace"], name))["spec"]["template"]
        return found

    def child(self, finetunejob: Object, role: str = names.TRAIN_ROLE, attempt: int = 1) -> Object:
        """The Job that the operator makes for a FineTuneJob. Whoever can read that can write it."""
        return child_job(parse_job(finetunejob), CONFIG, role, attempt)

    async def pod(self, namespace: str, job: str) -> Object:
        """The pod that the Job controller makes for a Job."""

        async def made() -> Object | None:
            selector = f"batch.kubernetes.io/job-name={job}"
            pods = [
                pod async for page in self.admin.pages(PODS, namespace, label_selector=selector) for pod in page.items
            ]
            return pods[0] if pods else None

        return await eventually_seen(f"the pod of {job}", made)

    async def end(self, pod: Object, said: Termination | str, exit_code: int = 0) -> Object:
        """The pod ends, with what its container wrote as its last words. The pod afterwards."""
        text = said if isinstance(said, str) else said.to_json()
        await end_pod(self.admin, pod, exit_code=exit_code, termination=text)
        return await self.admin.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])

    async def failed(self, namespace: str, job: str) -> Object:
        """The Job, when its controller has seen that it failed."""

        async def seen() -> Object | None:
            raw = await self.admin.get(JOBS, namespace, job)
            conditions = raw["status"].get("conditions") or ()
            return raw if any(item["type"] == "Failed" and item["status"] == "True" for item in conditions) else None

        return await eventually_seen(f"{job} to have failed", seen)

    async def patch(self, resource: Resource, name: str, patch: Object) -> Object:
        """The tenant changes an object of its namespace."""
        return await self.tenant.merge(resource, self.attacker, name, patch, field_manager="tenant")

    async def patch_spec(self, **fields: Any) -> None:
        """The tenant changes its own FineTuneJob."""
        await self.patch(FINETUNEJOBS, self.name, {"spec": fields})

    async def allowed(self, request: Awaitable[object]) -> bool:
        """Whether the API server lets the tenant do that."""
        try:
            await request
        except (Forbidden, Invalid):
            return False
        return True

    async def exists(self, resource: Resource, namespace: str, name: str) -> bool:
        """Whether there is such an object."""
        try:
            await self.admin.get(resource, namespace, name)
        except NotFound:
            return False
        return True

    async def token(self, pod: Object, finetunejob: Object) -> str:
        """A token for a FineTuneJob's reports, bound to a pod of the tenant's. `edit` lets the tenant ask for it."""
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        audience = names.progress_audience(finetunejob["metadata"]["uid"])
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "boundObjectRef": bound},
        }
        path = SERVICE_ACCOUNTS.path(self.attacker, "default", "token")
        answer = await self.tenant._request("POST", path, body=request)
        token: str = answer["status"]["token"]
        return token

    async def post(self, token: str, finetunejob: Object, *, path: str = "", at: datetime | None = None) -> int:
        """The tenant sends a report with step `EVIL_STEP`; the answer's status.

        Args:
            token: the bearer token.
            finetunejob: whose progress it is.
            path: the job's part of the path, instead of NAMESPACE/NAME/UID.
            at: time of the report; now, if it is None.
        """
        if self._listener is None:
            application = web.Application()
            own_token = self.ground.plane.operator_token
            server = ProgressServer(self.progress, self._writer, own_token=own_token, clock=self._clock, now=_now)
            server.add_to(application)
            self._listener = Listener(application)
            self._url = f"http://127.0.0.1:{await self._listener.start('127.0.0.1', 0)}/v1/jobs"
        self._writing = self._writing or asyncio.create_task(self._writer.run())
        metadata = finetunejob["metadata"]
        path = path or "/".join(metadata[key] for key in ("namespace", "name", "uid"))
        record = Progress(stage=Stage.TRAINING, step=EVIL_STEP, total_steps=1000, heartbeat_time=at or _now())
        headers = {"Authorization": f"Bearer {token}"}
        url = URL(f"{self._url}/{path}/progress", encoded=True)
        body = ProgressReport(progress=record).to_json()
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers) as response,
        ):
            return response.status

    async def shows_evil_step(self, namespace: str, name: str = "") -> bool:
        """Whether the tenant's report is in the status of the FineTuneJob of that name, by default the attack's."""
        await self.flush()
        raw = await self.admin.get(FINETUNEJOBS, namespace, name or self.name)
        progress = raw["status"].get("progress") or {}
        return bool(progress.get("step") == EVIL_STEP)

    async def shows_evil_output(self, namespace: str) -> bool:
        """Whether the job counts as Succeeded, with the tenant's adapter."""
        status = await self.status(namespace)
        return bool(status["phase"] == "Succeeded" and status["output"]["uri"] == EVIL_OUTPUT.uri)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
