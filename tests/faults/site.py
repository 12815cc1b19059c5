"""A place for one case: a namespace, an operator behind a proxy of its own, and what a user and a kubelet do there."""

import asyncio
import base64
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from component.plane import SYSTEM, Plane, Process, a_finetunejob, end_pod, operator, run_pod
from faults.door import Certificates, Door
from faults.proxy import Entry, Proxy
from finetune_operator.api import names
from finetune_operator.api.reasons import Phase, Reason
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, LEASES, PODS, SERVICES, Resource
from finetune_operator.kube.client import ClientKube, connect
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_trainer.contract.progress import Progress, ProgressReport, Stage
from finetune_trainer.contract.termination import Outcome, Termination

PATIENCE_SECONDS = 300.0
"""A way out when a case never converges; nothing is decided by it."""
REPORT_AGAIN_SECONDS = 30.0
"""How long a report that an operator has taken is not sent again."""
_NAMESPACES = Resource(group="", version="v1", plural="namespaces")
_ACCOUNTS = Resource(group="", version="v1", plural="serviceaccounts")
PREFLIGHT_PASSED = Termination(outcome=Outcome.SUCCEEDED, fingerprint="0" * 12).to_json()

T = TypeVar("T")


class DidNotConverge(Exception):  # noqa: N818 (an outcome)
    """What was waited for has not come."""


class Site:
    """One case's namespace and operator. Made by `site`."""

    def __init__(
        self, plane: Plane, admin: ClientKube, proxy: Proxy, door: Door | None, namespace: str, folder: Path
    ) -> None:
        self.door = door
        self.plane = plane
        self.admin = admin
        self.proxy = proxy
        self.namespace = namespace
        self.resync_seconds = 10
        self._folder = folder
        self._stack = ExitStack()
        self._process: Process | None = None
        self._logs: list[Path] = []
        self.reached: Callable[[str], None] = lambda _: None
        """Called by a life at its milestones."""
        self.struck: Callable[[], bool] = lambda: True
        """Whether what was to happen in this life has happened."""

    # The operator.

    def start(self) -> None:
        """Starts the operator. It has the name of the one before, as a container that is started again."""
        config = self._folder / "kubeconfig"
        if not config.exists():
            config.write_text(json.dumps(_kubeconfig(self.door or self.proxy, self.plane.operator_token())))
        self._process = self._stack.enter_context(
            operator(
                self.plane,
                self._folder,
                self.namespace,
                KUBECONFIG=str(config),
                POD_NAME="operator-0",
                # The same for every process, as a Service's name is: it is part of the pod template.
                FINETUNE_PROGRESS_URL="http://finetune-operator.finetune-system.svc:8080",
                FINETUNE_RESYNC_SECONDS=str(self.resync_seconds),
            )
        )
        self._logs.append(self._process.log)

    async def kill(self) -> None:
        """Ends the operator by SIGKILL."""
        assert self._process is not None
        self._process.popen.kill()
        await asyncio.to_thread(self._process.popen.wait)

    async def stop(self) -> int:
        """Ends the operator as Kubernetes does; its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.terminate, 60)

    @property
    def alive(self) -> bool:
        """Whether the operator runs."""
        return self._process is not None and self._process.popen.poll() is None

    @property
    def pid(self) -> int:
        """Of the operator."""
        assert self._process is not None
        return self._process.popen.pid

    def log(self) -> list[dict[str, Any]]:
        """What all processes of the operator have logged. A line that a SIGKILL has cut is left out."""
        found = []
        for path in self._logs:
            for line in path.read_text().splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    if line.startswith("{"):
                        continue
                    found.append({"level": "ERROR", "message": line})
        return found

    def errors(self) -> list[str]:
        """The lines with level ERROR or above."""
        return [item["message"] for item in self.log() if item["level"] in ("ERROR", "CRITICAL")]

    # What is there.

    async def until(self, what: str, look: Callable[[], Awaitable[T | None]]) -> T:
        """Looks until there is something.

        Raises:
            DidNotConverge: there is nothing for too long.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if found := await look():
                    return found
            except NotFound:
                pass
            if time.monotonic() > deadline:
                raise DidNotConverge(what)
            await asyncio.sleep(0.3)

    async def job(self, name: str = "job") -> dict[str, Any]:
        """A FineTuneJob."""
        return await self.admin.get(FINETUNEJOBS, self.namespace, name)

    async def status(self, name: str = "job") -> dict[str, Any]:
        """Its status; empty before the operator has seen it."""
        found: dict[str, Any] = (await self.job(name)).get("status") or {}
        return found

    async def items(self, resource: Resource, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind in the namespace."""
        pages = [page async for page in self.admin.pages(resource, self.namespace, label_selector=selector)]
        return [item for page in pages for item in page.items]

    async def jobs(self) -> list[dict[str, Any]]:
        """All batch Jobs."""
        return await self.items(JOBS)

    async def phase(self, phase: str, *, attempt: int | None = None, name: str = "job") -> dict[str, Any]:
        """Waits for a phase, and for an attempt; the status."""

        async def look() -> dict[str, Any] | None:
            status = await self.status(name)
            there = status.get("phase") == phase and attempt in (None, status.get("attempt"))
            return status if there else None

        return await self.until(f"{name}: {phase}, attempt {attempt or 'any'}", look)

    async def backed_off(self) -> None:
        """Waits until the job is suspended, and a resumption need not wait for the back-off of one second."""

        async def look() -> bool:
            status = await self.status()
            if status.get("phase") != Phase.SUSPENDED:
                return False
            ended = datetime.fromisoformat(status["attempts"][-1]["endTime"])
            return datetime.now(UTC) > ended + timedelta(seconds=2)

        await self.until("the back-off after a suspension to be over", look)

    async def pods(self, job: str, count: int = 1, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Waits for that many pods of a batch Job, in the order of their numbers. `without`: UIDs that do not count."""

        async def look() -> list[dict[str, Any]] | None:
            found = await self.items(PODS, f"job-name={job}")
            found = [pod for pod in found if pod["metadata"]["uid"] not in without]
            return sorted(found, key=_number) if len(found) == count else None

        return await self.until(f"{count} pods of {job}", look)

    async def pod(self, job: str, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
        """Waits for the pod of a batch Job."""
        return (await self.pods(job, without=without))[0]

    # What a user does.

    async def create(self, name: str = "job", **spec: Any) -> dict[str, Any]:
        """Creates a FineTuneJob."""
        return await self.admin.create(FINETUNEJOBS, self.namespace, self.manifest(name, **spec))

    def manifest(self, name: str = "job", **spec: Any) -> dict[str, Any]:
        """A FineTuneJob that fits this cluster."""
        return a_finetunejob(self.namespace, name, **{**self.plane.job_defaults, **spec})

    async def change(self, **spec: Any) -> None:
        """Changes the spec, as `kubectl patch` does."""
        await self.admin.merge(FINETUNEJOBS, self.namespace, "job", {"spec": spec}, field_manager="kubectl-patch")

    async def delete(self, name: str = "job") -> None:
        """Deletes the FineTuneJob if it is there, and waits until it and all its children are gone."""

        async def look() -> bool:
            try:
                uid = (await self.job(name))["metadata"]["uid"]
                await self.admin.delete(FINETUNEJOBS, self.namespace, name, uid=uid)
            except NotFound:
                pass
            return not await self.left()

        await self.until("the children to be collected", look)

    async def delete_namespace(self) -> None:
        """Deletes the namespace, waits until it is gone, and makes it anew, empty."""
        path = _NAMESPACES.path(None, self.namespace)
        await _delete(self.admin, path)

        async def look() -> bool:
            try:
                await self.admin._request("GET", path)
            except NotFound:
                return True
            return False

        await self.until("the namespace to be gone", look)
        await self.admin.create(_NAMESPACES, None, {"metadata": {"name": self.namespace}})

    async def left(self) -> list[str]:
        """The children of any FineTuneJob that are there, as `kind/name`."""
        found: list[str] = []
        for resource in (JOBS, PODS, SERVICES):
            items = await self.items(resource, f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}")
            found += [f"{resource.plural}/{item['metadata']['name']}" for item in items]
        return found

    # What a kubelet and a trainer do.

    async def run(self, pod: dict[str, Any]) -> None:
        """The container starts."""
        await run_pod(self.admin, pod)

    async def end(
        self, pod: dict[str, Any], ended: Termination | None = None, exit_code: int = 0, *, sidecar: bool = False
    ) -> None:
        """The container ends, by default with an adapter. An injected sidecar goes on."""
        termination = None if ended is None else ended.to_json()
        await end_pod(self.admin, pod, exit_code=exit_code, termination=termination, sidecar=sidecar)

    async def pass_preflight(self, pod: dict[str, Any], *, sidecar: bool = False) -> None:
        """The container of preflight ends well."""
        await end_pod(self.admin, pod, termination=PREFLIGHT_PASSED, sidecar=sidecar)

    async def disrupt(self, pod: dict[str, Any]) -> None:
        """The node is drained: the pod fails with the condition by which its Job replaces it."""
        metadata = pod["metadata"]
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "lastTransitionTime": _now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        patch = {"status": {"phase": "Failed", "conditions": [condition]}}
        await self.admin.merge(
            PODS, self.namespace, metadata["name"], patch, field_manager="kubelet", subresource="status"
        )

    async def report(self, pod: dict[str, Any], step: int) -> None:
        """The trainer reports a step, again and again until the status shows it.

        A report that this operator has taken is sent again after a while only: it could be a second write.
        """
        job = await self.job()
        token = await self._pod_token(job["metadata"]["uid"], pod)
        record = Progress(stage=Stage.TRAINING, step=step, total_steps=10, heartbeat_time=_now())
        path = f"/v1/jobs/{self.namespace}/job/{job['metadata']['uid']}/progress"
        taken_by, again_at = 0, 0.0

        async def look() -> bool:
            nonlocal taken_by, again_at
            status = await self.status()
            if (status.get("progress") or {}).get("step") == step:
                return True
            assert self._process is not None
            pid = self.pid
            if taken_by == pid and time.monotonic() < again_at:
                return False
            with suppress(aiohttp.ClientError):
                async with aiohttp.ClientSession() as session:
                    answer = await session.post(
                        self._process.url + path,
                        data=ProgressReport(progress=record).to_json(),
                        headers={"Authorization": f"Bearer {token}"},
                    )
                    if answer.ok:
                        taken_by, again_at = pid, time.monotonic() + REPORT_AGAIN_SECONDS
            await asyncio.sleep(0.5)
            return False

        await self.until(f"step {step} in the status", look)

    async def _pod_token(self, uid: str, pod: dict[str, Any]) -> str:
        """A token as the kubelet projects it into the pod."""
        metadata = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [names.progress_audience(uid)], "boundObjectRef": bound},
        }
        path = _ACCOUNTS.path(self.namespace, pod["spec"].get("serviceAccountName", "default"), "token")
        answer = await self.admin._request("POST", path, body=request)
        token: str = answer["status"]["token"]
        return token

    # What it is judged by.

    async def outcome(self) -> dict[str, Any]:
        """What does not depend on times and UIDs: the job's status, and its children. For comparing two lives."""
        try:
            status = await self.status()
        except NotFound:
            status = {"phase": "deleted"}
        return {
            **{name: status.get(name) for name in ("phase", "attempt", "restarts", "countedFailures", "jobName")},
            "failure": (status.get("failure") or {}).get("reason"),
            "output": (status.get("output") or {}).get("uri"),
            "runToken": status.get("runToken"),
            "step": (status.get("progress") or {}).get("step"),
            "attempts": [
                {name: item.get(name) for name in ("number", "reason", "exitCode", "counted")}
                for item in status.get("attempts") or ()
            ],
            "conditions": {item["type"]: (item["status"], item["reason"]) for item in status.get("conditions") or ()},
            "jobs": sorted(f"{item['metadata']['name']} {job_end(item)}" for item in await self.jobs()),
        }

    def history(self) -> list[str]:
        """The phases that the job had, each with its reason, by the answers to the operator's writes.

        Repeated ones stand once. Those in which time alone is waited for may be over before they are written.
        """
        found: list[str] = []
        for entry in self.proxy.journal:
            if entry.call.resource == "finetunejobs/status" and entry.status == 200:
                status = entry.answer.get("status") or {}
                ready = next((item["reason"] for item in status.get("conditions") or () if item["type"] == "Ready"), "")
                phase = status.get("phase", "")
                if phase != Phase.PENDING and ready != Reason.NO_POD and found[-1:] != [f"{phase}/{ready}"]:
                    found.append(f"{phase}/{ready}")
        return found

    def made(self) -> list[tuple[str, str]]:
        """Name and UID of each batch Job that the operator has made, in order."""
        return [
            (entry.answer["metadata"]["name"], entry.answer["metadata"]["uid"])
            for entry in self.proxy.journal
            if entry.call.resource == "jobs" and entry.status == 201
        ]

    def close(self) -> None:
        """Ends the operator."""
        self._stack.close()


class OneAtATime:
    """Watches that no two trainings of a site are at work together: looks whenever the operator has made a Job."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.together: list[str] = []
        site.proxy.on_write = self._look

    async def _look(self, entry: Entry) -> None:
        if entry.call.resource != "jobs" or entry.status != 201:
            return
        try:
            jobs = await self._site.items(JOBS, f"{names.ROLE_LABEL}={names.TRAIN_ROLE}")
            active = [item["metadata"]["name"] for item in jobs if job_end(item) == "active"]
        except KubeError:
            return
        if len(active) > 1:
            self.together.append(" and ".join(sorted(active)))


@asynccontextmanager
async def site(plane: Plane, folder: Path, certificates: Certificates | None = None) -> AsyncIterator[Site]:
    """A namespace with a proxy; the operator is not started yet.

    Args:
        plane: the cluster.
        folder: for its files.
        certificates: of the proxy's door. Without them there is no door, and the operator speaks plain HTTP.
    """
    namespace = f"faults-{uuid.uuid4().hex[:8]}"
    own = folder / namespace
    own.mkdir(parents=True)
    server, context = _api_server(plane)
    proxy = Proxy(server, context)
    async with connect({"KUBECONFIG": str(plane.kubeconfig)}) as admin, proxy.running():
        await admin.create(_NAMESPACES, None, {"metadata": {"name": namespace}})
        door = None if certificates is None else Door(certificates, proxy.url)
        place = Site(plane, admin, proxy, door, namespace, own)
        try:
            async with door.running() if door is not None else nullcontext():
                yield place
                await asyncio.to_thread(place.close)
        finally:
            await asyncio.to_thread(place.close)
            await _delete(admin, _NAMESPACES.path(None, namespace))
            await _delete(admin, LEASES.path(SYSTEM, f"operator-{namespace}"))


async def _delete(admin: ClientKube, path: str) -> None:
    with suppress(NotFound):
        await admin._request("DELETE", path)


def job_end(job: Mapping[str, Any]) -> str:
    """How a batch Job has ended: complete, failed, deleting; or that it is active."""
    if "deletionTimestamp" in job["metadata"]:
        return "deleting"
    conditions = (job.get("status") or {}).get("conditions") or ()
    true = {item["type"] for item in conditions if item["status"] == "True"}
    return "complete" if "Complete" in true else "failed" if {"Failed", "FailureTarget"} & true else "active"


@cache
def _api_server(plane: Plane) -> tuple[str, ssl.SSLContext]:
    config = json.loads(plane.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    cluster = config["clusters"][0]["cluster"]
    authority = cluster.get("certificate-authority-data")
    return cluster["server"], ssl.create_default_context(
        cadata=base64.b64decode(authority).decode() if authority else None
    )


def _kubeconfig(entrance: Proxy | Door, token: str) -> dict[str, Any]:
    cluster = {"server": entrance.url}
    if isinstance(entrance, Door):
        cluster["certificate-authority"] = str(entrance.authority)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "faults",
        "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "faults"}}],
        "clusters": [{"name": "faults", "cluster": cluster}],
        "users": [{"name": "faults", "user": {"token": token}}],
    }


def _number(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"]["labels"].get(names.INDEX_LABEL, 0))


def _now() -> datetime:
    """Now, in whole seconds; a little earlier, for clocks that differ."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1)
