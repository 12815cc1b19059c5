"""The event handler: updates the cache from watch events, and enqueues the FineTuneJob if the event matters to it.

Most events do not: our own writes, pod conditions that no view has, progress records. Without them a FineTuneJob needs
only a handful of reconciles in its life.
"""

from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.api import names
from finetune_operator.api.spec import ProfileKind
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.profiles import ProfileCache
from finetune_operator.control.informer.record import finetunejob_record
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.reconcile.observed import JobView, PodView, job_view, pod_view

DELETED = "DELETED"

_ViewOf = Callable[[Mapping[str, Any]], JobView | PodView | None]


class EventHandler:
    """Receives the events of watches and the objects of lists."""

    def __init__(self, cache: Cache, queue: WorkQueue[Key], profiles: ProfileCache | None = None) -> None:
        self._cache = cache
        self._queue = queue
        self._profiles = profiles if profiles is not None else ProfileCache()

    def finetunejob(self, type_: str | None, raw: Mapping[str, Any]) -> None:
        """A FineTuneJob was listed (None), added, modified or deleted."""
        if type_ == DELETED:
            metadata = raw["metadata"]
            self._cache.remove_finetunejob((metadata["namespace"], metadata["name"]), metadata["uid"])
            return
        record = finetunejob_record(raw)
        if self._cache.put_finetunejob(record) and not record.settled:
            # High priority before the first attempt: a user waits for the first pod.
            self._queue.add(record.key, high_priority=record.attempt == 0)

    def profile(self, type_: str | None, raw: Mapping[str, Any]) -> None:
        """A FineTuneProfile of a namespace was listed, added, modified or deleted."""
        self._profile(ProfileKind.NAMESPACED, type_, raw)

    def cluster_profile(self, type_: str | None, raw: Mapping[str, Any]) -> None:
        """A ClusterFineTuneProfile was listed, added, modified or deleted."""
        self._profile(ProfileKind.CLUSTER, type_, raw)

    def _profile(self, kind: ProfileKind, type_: str | None, raw: Mapping[str, Any]) -> None:
        metadata = raw["metadata"]
        namespace = metadata.get("namespace", "") if kind is ProfileKind.NAMESPACED else ""
        if type_ == DELETED:
            changed = self._profiles.remove(kind, namespace, metadata["name"], metadata["uid"])
        else:
            changed = self._profiles.put(kind, raw)
        if changed:
            # A run that has begun has its values. A job that waits may find here what it waits for.
            for record in self._cache.finetunejobs():
                if record.waits and namespace in ("", record.namespace):
                    self._queue.add(record.key, high_priority=True)

    def job(self, type_: str | None, raw: Mapping[str, Any]) -> None:
        """A child Job was listed, added, modified or deleted."""
        self._child(type_, raw, job_view)

    def pod(self, type_: str | None, raw: Mapping[str, Any]) -> None:
        """A pod of a child Job was listed, added, modified or deleted."""
        self._child(type_, raw, pod_view)

    def _child(self, type_: str | None, raw: Mapping[str, Any], view_of: _ViewOf) -> None:
        metadata = raw["metadata"]
        uid = (metadata.get("labels") or {}).get(names.FINETUNEJOB_UID_LABEL)
        if uid is None or not self._cache.keeps_children(owner := (metadata["namespace"], uid)):
            return
        if type_ == DELETED:
            changed = self._cache.remove_child(owner, metadata["uid"])
        else:
            view = view_of(raw)
            changed = view is not None and self._cache.put_child(owner, metadata.get("resourceVersion", ""), view)
        if changed and (key := self._cache.key_of(owner)) is not None:
            self._queue.add(key)
