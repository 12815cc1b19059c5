"""The event filter: drops events of watches and objects of lists that bring nothing new to the cache.

A FineTuneJob has about eleven events, and eight of them bring nothing new: our own writes, whose answers are in the
cache already; a Job's counters, which no view has; children of a finished job, which are not kept.
"""

from collections.abc import Callable, Mapping
from typing import Any

from finetune_operator.api import names
from finetune_operator.control.informer.cache import Cache
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS
from finetune_operator.reconcile.observed import JobView, PodView, job_view, pod_view

DELETED = "DELETED"

_VIEWS: dict[str, Callable[[Mapping[str, Any]], JobView | PodView | None]] = {
    JOBS.plural: job_view,
    PODS.plural: pod_view,
}
WATCHED = frozenset({FINETUNEJOBS.plural, *_VIEWS})
"""Plurals of the kinds that are filtered."""


class EventFilter:
    """The filter for one kind in one list or one watch connection.

    It keeps a hash of the last view of each object. One connection delivers every version of an object in order, so a
    view that equals the last one brings nothing new. The next connection may start elsewhere, so it needs a new filter.

    It may run on another thread than the cache: it reads single entries, whose versions only grow. If the cache changes
    at the same time, the filter may let one event too many through, and never one too few.

    Args:
        cache: the cache that the events would update.
        plural: the kind, one of `WATCHED`.
    """

    def __init__(self, cache: Cache, plural: str) -> None:
        self._cache = cache
        self._view_of = _VIEWS.get(plural)
        self._seen: dict[str, int] = {}  # hash of the last view, by UID

    def is_new(self, type_: str | None, raw: Mapping[str, Any]) -> bool:
        """Whether an event must be handled.

        Args:
            type_: type of the event; None for an object of a list.
            raw: the object.
        """
        metadata: Mapping[str, Any] = raw["metadata"]
        uid: str = metadata["uid"]
        version: str = metadata.get("resourceVersion", "")
        if self._view_of is None:
            return type_ == DELETED or not self._cache.holds_finetunejob(uid, version)
        owner_uid = (metadata.get("labels") or {}).get(names.FINETUNEJOB_UID_LABEL)
        if owner_uid is None or not self._cache.keeps_children(owner := (metadata["namespace"], owner_uid)):
            self._seen.pop(uid, None)
            return False
        if type_ == DELETED:
            self._seen.pop(uid, None)
            return True
        before, now = self._seen.get(uid), hash(self._view_of(raw))
        self._seen[uid] = now
        return before != now and not self._cache.holds_child(owner, uid, version)
