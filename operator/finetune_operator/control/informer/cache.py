"""The cache: records of FineTuneJobs, and views of their Jobs and pods by owner.

A decision is made from the cache and confirmed by a live read (`live_reader`) before it acts, so the cache may be
stale for a while, but not for ever. Versions of one object are ordered by resourceVersion, so the answer to our own
write and an older watch event may arrive in any order. The `prune` methods remove objects whose deletion a watch lost.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from finetune_operator.control import Key, Owner
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.reconcile.observed import JobView, Observed, PodView

V = TypeVar("V", JobView, PodView)


@dataclass(slots=True)
class _Children:
    jobs: dict[str, tuple[str, JobView]] = field(default_factory=dict)  # by UID, with the resourceVersion
    pods: dict[str, tuple[str, PodView]] = field(default_factory=dict)


class Cache:
    """The state of all watched objects; for one event loop."""

    def __init__(self) -> None:
        self._jobs: dict[Key, FineTuneJobRecord] = {}
        self._keys: dict[str, Key] = {}  # by UID of the FineTuneJob
        self._children: dict[Owner, _Children] = {}
        self._incomplete: set[Owner] = set()  # owners whose children are not kept

    def finetunejob(self, key: Key) -> FineTuneJobRecord | None:
        """The FineTuneJob of that name."""
        return self._jobs.get(key)

    def finetunejob_by_uid(self, uid: str) -> FineTuneJobRecord | None:
        """The FineTuneJob with that UID."""
        key = self._keys.get(uid)
        return None if key is None else self._jobs.get(key)

    def finetunejobs(self) -> Iterator[FineTuneJobRecord]:
        """All FineTuneJobs."""
        return iter(self._jobs.values())

    def observed(self, owner: Owner) -> Observed | None:
        """The children of a FineTuneJob, or None if they are not kept and must be read.

        Owner references decide, not labels: anybody who may create pods can write labels. A Job counts by its
        controller reference, a pod by its Job, and both must be in the namespace of the FineTuneJob.
        """
        if owner in self._incomplete:
            return None
        children = self._children.get(owner)
        if children is None:
            return Observed()
        return own_children(
            owner, (view for _, view in children.jobs.values()), (view for _, view in children.pods.values())
        )

    def has_children(self, owner: Owner) -> bool:
        """Whether a FineTuneJob has a known child, or its children are not kept."""
        children = self._children.get(owner)
        return owner in self._incomplete or (children is not None and bool(children.jobs or children.pods))

    def holds_finetunejob(self, uid: str, version: str) -> bool:
        """Whether the cache has a FineTuneJob in that version or a later one. Thread-safe, as `holds_child` is."""
        record = self.finetunejob_by_uid(uid)
        return record is not None and record.uid == uid and _at_least(record.resource_version, version)

    def holds_child(self, owner: Owner, uid: str, version: str) -> bool:
        """Whether the cache has a Job or pod of a FineTuneJob in that version or a later one.

        Thread-safe: it reads single dict entries, which the interpreter does atomically, and an object's version only
        grows, so a True stays true.
        """
        children = self._children.get(owner)
        if children is None:
            return False
        entry = children.jobs.get(uid) or children.pods.get(uid)
        return entry is not None and _at_least(entry[0], version)

    def put_finetunejob(self, record: FineTuneJobRecord) -> bool:
        """Puts a version of a FineTuneJob into the cache.

        Returns:
            Whether it must be reconciled (see `FineTuneJobRecord.differs_from`).
        """
        earlier = self._jobs.get(record.key)
        if earlier is not None:
            if earlier.uid == record.uid and is_older(record.resource_version, earlier.resource_version):
                return False
            if earlier.uid != record.uid:
                if is_older(record.resource_version, earlier.resource_version):
                    return False  # a late event of a deleted object, whose name another one has now
                self._forget(earlier)
        self._jobs[record.key] = record.kept()
        self._keys[record.uid] = record.key
        if record.settled:
            # They are not needed. If the FineTuneJob becomes active again, they are read live.
            self._children.pop(record.owner, None)
            self._incomplete.add(record.owner)
        return record.differs_from(earlier)

    def remove_finetunejob(self, key: Key, uid: str) -> bool:
        """Removes a FineTuneJob.

        Returns:
            Whether it was in the cache.
        """
        record = self._jobs.get(key)
        if record is None or record.uid != uid:
            return False
        del self._jobs[key]
        self._forget(record)
        return True

    def put_child(self, owner: Owner, version: str, view: JobView | PodView) -> bool:
        """Puts a version of a child of that FineTuneJob into the cache.

        Returns:
            Whether the view changed.
        """
        if owner in self._incomplete:
            return False
        children = self._children.setdefault(owner, _Children())
        if isinstance(view, JobView):
            return _put(children.jobs, version, view)
        return _put(children.pods, version, view)

    def remove_child(self, owner: Owner, uid: str) -> bool:
        """Removes a child.

        Returns:
            Whether it was in the cache.
        """
        children = self._children.get(owner)
        if children is None:
            return False
        removed = children.jobs.pop(uid, None) is not None or children.pods.pop(uid, None) is not None
        if not children.jobs and not children.pods:
            del self._children[owner]
        return removed

    def keep_children(self, owner: Owner) -> None:
        """Keeps the children of a FineTuneJob that is active again; the caller puts them next."""
        self._incomplete.discard(owner)

    def keeps_children(self, owner: Owner) -> bool:
        """Whether the children of that FineTuneJob are kept; those of a settled one are not. Thread-safe."""
        return owner not in self._incomplete

    def key_of(self, owner: Owner) -> Key | None:
        """Key of the FineTuneJob with that UID, if it is in that namespace."""
        namespace, uid = owner
        key = self._keys.get(uid)
        return key if key is not None and key[0] == namespace else None

    def prune_finetunejobs(self, seen: Collection[str], version: str, namespace: str | None) -> list[Key]:
        """Removes FineTuneJobs that are not in a list.

        Args:
            seen: UIDs in the list.
            version: resourceVersion of the list; newer objects stay.
            namespace: the namespace that was listed; None for all.

        Returns:
            The keys of the removed FineTuneJobs.
        """
        gone = [
            record
            for record in self._jobs.values()
            if record.uid not in seen
            and namespace in (None, record.namespace)
            and not is_older(version, record.resource_version)
        ]
        for record in gone:
            self.remove_finetunejob(record.key, record.uid)
        return [record.key for record in gone]

    def prune_children(
        self,
        kind: type[JobView] | type[PodView],
        seen: Collection[str],
        version: str,
        namespace: str | None,
        *,
        owner: Owner | None = None,
    ) -> set[Owner]:
        """Removes Jobs or pods that are not in a list; of one FineTuneJob only, if `owner` is given.

        Returns:
            The owners of the removed children.
        """
        owners = list(self._children) if owner is None else [owner]
        gone = [
            (each, uid)
            for each in owners
            for uid, (known_version, view) in self._entries(each, kind)
            if uid not in seen and namespace in (None, view.namespace) and not is_older(version, known_version)
        ]
        for each, uid in gone:
            self.remove_child(each, uid)
        return {each for each, _ in gone}

    def newest_version(self, kind: type[JobView] | type[PodView], owner: Owner) -> str:
        """The latest resourceVersion among the known Jobs or pods of a FineTuneJob; empty if there are none."""
        versions = [version for _, (version, _) in self._entries(owner, kind) if version.isdecimal()]
        return max(versions, key=int, default="")

    def _entries(
        self, owner: Owner, kind: type[JobView] | type[PodView]
    ) -> Iterable[tuple[str, tuple[str, JobView | PodView]]]:
        children = self._children.get(owner)
        if children is None:
            return ()
        return children.jobs.items() if kind is JobView else children.pods.items()

    def _forget(self, record: FineTuneJobRecord) -> None:
        self._keys.pop(record.uid, None)
        self._children.pop(record.owner, None)
        self._incomplete.discard(record.owner)


def own_children(owner: Owner, jobs: Iterable[JobView], pods: Iterable[PodView]) -> Observed:
    """The Jobs that a FineTuneJob controls, and the pods that those Jobs control, all in its namespace.

    Kubernetes ignores an owner reference to another namespace, and anybody can write one.
    """
    namespace, uid = owner
    own_jobs = tuple(job for job in jobs if (job.namespace, job.owner_uid) == (namespace, uid))
    job_uids = {job.uid for job in own_jobs}
    return Observed(
        jobs=own_jobs, pods=tuple(pod for pod in pods if pod.namespace == namespace and pod.job_uid in job_uids)
    )


def _put(entries: dict[str, tuple[str, V]], version: str, view: V) -> bool:
    earlier = entries.get(view.uid)
    if earlier is not None and is_older(version, earlier[0]):
        return False
    entries[view.uid] = version, view
    return earlier is None or earlier[1] != view


def _at_least(version: str, other: str) -> bool:
    """Whether `version` is certainly `other` or newer."""
    return version.isdecimal() and other.isdecimal() and int(version) >= int(other)


def is_older(version: str, other: str) -> bool:
    """Whether `version` is certainly older than `other`. Kubernetes orders resourceVersions as numbers."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
