"""`progress.ports.Cluster`: reads the cache where a watch feeds it, otherwise the API server.

A standby replica has no watches but takes reports too. It reuses each read for a few seconds.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.status import ProgressStatus
from finetune_operator.control.informer.cache import Cache, own_children
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.record import FineTuneJobRecord, finetunejob_record
from finetune_operator.control.status_patch import progress_patch
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS, TOKEN_REVIEWS, Kube
from finetune_operator.kube.errors import Conflict, KubeError, NotFound
from finetune_operator.progress.ports import FineTuneJobState, PodIdentity, Unavailable
from finetune_operator.reconcile.observed import Observed, job_view, pod_view

READ_AGAIN_SECONDS = 5.0
KEPT_READS = 2_000
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_WRITE_TRIES = 3


class KubeProgressCluster:
    """`progress.ports.Cluster` over cache and API server.

    Args:
        is_watching: whether a watch feeds the cache for a namespace.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        event_handler: EventHandler,
        *,
        is_watching: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._event_handler = event_handler
        self._is_watching = is_watching
        self._clock = clock
        self._reads: dict[str, tuple[float, FineTuneJobRecord]] = {}  # by UID

    async def review(self, token: str, audience: str) -> PodIdentity | None:
        """See `Cluster.review`."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        try:
            answer = await self._kube.create(TOKEN_REVIEWS, None, body)
        except KubeError as error:
            raise Unavailable(error.message, level=error.level) from None
        status = answer.get("status") or {}
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return None
        return _pod_identity(status.get("user") or {})

    async def signing_keys(self) -> Mapping[str, Any]:
        """See `Cluster.signing_keys`."""
        try:
            return await self._kube.signing_keys()
        except KubeError as error:
            raise Unavailable(error.message, level=error.level) from None

    async def finetunejob(self, ref: FineTuneJobRef) -> FineTuneJobState | None:
        """See `Cluster.finetunejob`."""
        record = await self._record(ref)
        if record is None:
            return None
        return FineTuneJobState(
            finished=record.finished or record.ignored, attempt=record.attempt, heartbeat_time=_heartbeat_time(record)
        )

    async def attempt_of(self, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
        """See `Cluster.attempt_of`."""
        if self._is_watching(ref.namespace):
            attempt = _attempt(self._cache.observed((ref.namespace, ref.uid)), pod)
            if attempt is not None:
                return attempt
        try:
            raw_pod = await self._kube.get(PODS, pod.namespace, pod.name)
            view = pod_view(raw_pod)
            if view is None or (view.namespace, view.name, view.owner_uid) != (ref.namespace, pod.name, ref.uid):
                return None
            job = job_view(await self._kube.get(JOBS, pod.namespace, view.job_name)) if view.job_name else None
        except NotFound:
            return None
        except KubeError as error:
            raise Unavailable(error.message, level=error.level) from None
        return None if job is None else _attempt(own_children((ref.namespace, ref.uid), [job], [view]), pod)

    async def write(self, ref: FineTuneJobRef, attempt: int, progress: ProgressStatus) -> None:
        """See `Cluster.write`.

        The patch carries the resourceVersion that the decision was made on. After a conflict the object is read again
        and the decision is repeated, so a late record never overwrites the last record of a finished job.
        """
        record = await self._record(ref)
        for _ in range(_WRITE_TRIES):
            if record is None or _is_out_of_date(record, attempt, progress):
                return
            try:
                raw = await self._kube.merge(
                    FINETUNEJOBS,
                    ref.namespace,
                    ref.name,
                    progress_patch(record.resource_version, progress),
                    field_manager=names.PROGRESS_FIELD_MANAGER,
                    subresource="status",
                )
            except Conflict:
                record = await self._read(ref)
                continue
            except NotFound:
                return
            except KubeError as error:
                raise Unavailable(error.message, level=error.level) from None
            self._keep(raw)
            return
        raise Unavailable("the status changes faster than it can be written")

    async def _record(self, ref: FineTuneJobRef) -> FineTuneJobRecord | None:
        """The FineTuneJob from the cache if a watch feeds it, from a recent read, or from a new read."""
        if self._is_watching(ref.namespace) and (record := self._cache.finetunejob_by_uid(ref.uid)) is not None:
            return record if record.key == (ref.namespace, ref.name) else None
        until, record = self._reads.get(ref.uid, (0.0, None))
        if record is not None and until > self._clock() and record.key == (ref.namespace, ref.name):
            return record
        return await self._read(ref)

    async def _read(self, ref: FineTuneJobRef) -> FineTuneJobRecord | None:
        try:
            raw = await self._kube.get(FINETUNEJOBS, ref.namespace, ref.name)
        except NotFound:
            return None
        except KubeError as error:
            raise Unavailable(error.message, level=error.level) from None
        metadata = raw["metadata"]
        if FineTuneJobRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]) != ref:
            return None
        return self._keep(raw)

    def _keep(self, raw: Mapping[str, Any]) -> FineTuneJobRecord:
        record = finetunejob_record(raw)
        if self._is_watching(record.namespace):
            # Handled like a watch event: if it changes something, the watch event that follows will not.
            self._event_handler.finetunejob(None, raw)
            return record
        now = self._clock()
        if len(self._reads) >= KEPT_READS:
            self._reads = {uid: (until, kept) for uid, (until, kept) in self._reads.items() if until > now}
        self._reads[record.uid] = now + READ_AGAIN_SECONDS, record
        return record


def _pod_identity(user: Mapping[str, Any]) -> PodIdentity | None:
    """The pod that a service account token is bound to; None if it is bound to none."""
    username = user.get("username", "")
    extra: Mapping[str, list[str]] = user.get("extra") or {}
    pod_names, pod_uids = extra.get(_POD_NAME, []), extra.get(_POD_UID, [])
    if not username.startswith(_SERVICE_ACCOUNT) or len(pod_names) != 1 or len(pod_uids) != 1:
        return None
    namespace = username.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
    return PodIdentity(namespace=namespace, name=pod_names[0], uid=pod_uids[0])


def _attempt(observed: Observed | None, pod: PodIdentity) -> int | None:
    if observed is None:
        return None
    return next((view.attempt for view in observed.pods if (view.uid, view.name) == (pod.uid, pod.name)), None)


def _heartbeat_time(record: FineTuneJobRecord) -> datetime | None:
    if not record.progress:
        return None
    return ProgressStatus.model_validate(json.loads(record.progress)).heartbeat_time


def _is_out_of_date(record: FineTuneJobRecord, attempt: int, progress: ProgressStatus) -> bool:
    if record.finished or record.ignored or attempt < record.attempt or record.between_attempts:
        return True
    heartbeat_time = _heartbeat_time(record)
    return (
        heartbeat_time is not None and progress.heartbeat_time is not None and progress.heartbeat_time < heartbeat_time
    )
