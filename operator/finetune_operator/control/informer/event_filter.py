"""Whether what a watch or a list says is anything that the cache does not know.

Of the eleven events of a job's life eight are none: echoes of our own writes, whose answers the cache had before; a
Job's counters, which no view has; children of a job that has ended, which are not kept.
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
"""The kinds that are asked about, by their plurals."""


class EventFilter:
    """What one list or one connection of a watch has said of one kind.

    It remembers the views that came by. A connection has each version of each object, in order, so a view that is the
    same as the one before is no news; the next connection may begin elsewhere, and needs another `EventFilter`.

    It may be asked by another thread than the cache's: it looks up single entries, whose versions only grow. What the
    cache takes in meanwhile makes it say too much, which costs a little time, and never too little.

    Args:
        cache: what is known.
        plural: the kind, one of `WATCHED`.
    """

    def __init__(self, cache: Cache, plural: str) -> None:
        self._cache = cache
        self._view_of = _VIEWS.get(plural)
        self._seen: dict[str, int] = {}  # hash of the last view, by UID

    def is_new(self, type_: str | None, raw: Mapping[str, Any]) -> bool:
        """Whether an event has any.

        Args:
            type_: the event's type; None for an object of a list.
            raw: the object.
        """
        metadata: Mapping[str, Any] = raw["metadata"]
        uid: str = metadata["uid"]
        version: str = metadata.get("resourceVersion", "")
        if self._view_of is None:
            return type_ == DELETED or not self._cache.holds_finetunejob(uid, version)
        owner_uid = (metadata.get("labels") or {}).get(names.JOB_UID_LABEL)
        if owner_uid is None or not self._cache.keeps_children(owner := (metadata["namespace"], owner_uid)):
            self._seen.pop(uid, None)
            return False
        if type_ == DELETED:
            self._seen.pop(uid, None)
            return True
        before, now = self._seen.get(uid), hash(self._view_of(raw))
        self._seen[uid] = now
        return before != now and not self._cache.holds_child(owner, uid, version)
