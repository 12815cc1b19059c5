"""What the watches have shown: records of FineTuneJobs, and views of their Jobs and pods by owner.

Decisions start from here and are confirmed live before they act (`live`), so being late is allowed; being wrong for
ever is not. Versions of one object are ordered by resourceVersion, so an answer to our own write and an older watch
event may arrive in any order. Deletions that a watch lost go with `prune`.
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
        self._incomplete: set[Owner] = set()  # their children were not kept

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
        """The children of a FineTuneJob, or None when they were not kept and must be read.

        Only what the job really owns counts: a Job by its controller reference, a pod by its Job, both in the job's
        namespace. Labels alone could be written by anybody who may create pods.
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
        """Whether any child of that FineTuneJob is known."""
        children = self._children.get(owner)
        return owner in self._incomplete or (children is not None and bool(children.jobs or children.pods))

    def holds_finetunejob(self, uid: str, version: str) -> bool:
        """Whether a FineTuneJob is known in that version or a later one. Any thread may ask: see `holds_child`."""
        record = self.finetunejob_by_uid(uid)
        return record is not None and record.uid == uid and _at_least(record.resource_version, version)

    def holds_child(self, owner: Owner, uid: str, version: str) -> bool:
        """Whether a Job or pod of a FineTuneJob is known in that version or a later one.

        Any thread may ask. It looks up single entries of dicts, each of them in one step of the interpreter, and an
        object's version only grows: what it says stays true.
        """
        children = self._children.get(owner)
        if children is None:
            return False
        entry = children.jobs.get(uid) or children.pods.get(uid)
        return entry is not None and _at_least(entry[0], version)

    def put_finetunejob(self, record: FineTuneJobRecord) -> bool:
        """Takes in a version of a FineTuneJob.

        Returns:
            Whether it is news (see `FineTuneJobRecord.differs_from`).
        """
        earlier = self._jobs.get(record.key)
        if earlier is not None:
            if earlier.uid == record.uid and _older(record.resource_version, earlier.resource_version):
                return False
            if earlier.uid != record.uid:
                if _older(record.resource_version, earlier.resource_version):
                    return False  # the last word about an object whose name another one has now
                self._forget(earlier)
        self._jobs[record.key] = record
        self._keys[record.uid] = record.key
        if record.settled:
            # Nobody will ask for them; should the job come back to life, they are read.
            self._children.pop(record.owner, None)
            self._incomplete.add(record.owner)
        return record.differs_from(earlier)

    def remove_finetunejob(self, key: Key, uid: str) -> bool:
        """Takes out a FineTuneJob.

        Returns:
            Whether it was there.
        """
        record = self._jobs.get(key)
        if record is None or record.uid != uid:
            return False
        del self._jobs[key]
        self._forget(record)
        return True

    def put_child(self, owner: Owner, version: str, view: JobView | PodView) -> bool:
        """Takes in a version of a child of that FineTuneJob.

        Returns:
            Whether anything in the view changed.
        """
        if owner in self._incomplete:
            return False
        children = self._children.setdefault(owner, _Children())
        if isinstance(view, JobView):
            return _put(children.jobs, version, view)
        return _put(children.pods, version, view)

    def remove_child(self, owner: Owner, uid: str) -> bool:
        """Takes out a child.

        Returns:
            Whether it was there.
        """
        children = self._children.get(owner)
        if children is None:
            return False
        removed = children.jobs.pop(uid, None) is not None or children.pods.pop(uid, None) is not None
        if not children.jobs and not children.pods:
            del self._children[owner]
        return removed

    def keep_children(self, owner: Owner) -> None:
        """The children of a FineTuneJob that came back to life are about to be put; they count from now on."""
        self._incomplete.discard(owner)

    def keeps_children(self, owner: Owner) -> bool:
        """Whether children of that FineTuneJob are kept, as they are not for a settled one. Any thread may ask."""
        return owner not in self._incomplete

    def key_of(self, owner: Owner) -> Key | None:
        """Name of the FineTuneJob with that UID, if it is in that namespace."""
        namespace, uid = owner
        key = self._keys.get(uid)
        return key if key is not None and key[0] == namespace else None

    def prune_finetunejobs(self, seen: Collection[str], version: str, namespace: str | None) -> list[Key]:
        """Takes out FineTuneJobs that a list of a namespace (None: of all) did not show.

        Args:
            seen: UIDs that the list showed.
            version: resourceVersion of the list; what is newer than it stays.
            namespace: the namespace that was listed.

        Returns:
            The names of those taken out.
        """
        gone = [
            record
            for record in self._jobs.values()
            if record.uid not in seen
            and namespace in (None, record.namespace)
            and not _older(version, record.resource_version)
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
        """The same for Jobs or pods; of one FineTuneJob only, if `owner` is given.

        Returns:
            The FineTuneJobs that lost a child.
        """
        owners = list(self._children) if owner is None else [owner]
        gone = [
            (each, uid)
            for each in owners
            for uid, (known_version, view) in self._entries(each, kind)
            if uid not in seen and namespace in (None, view.namespace) and not _older(version, known_version)
        ]
        for each, uid in gone:
            self.remove_child(each, uid)
        return {each for each, _ in gone}

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

    A reference to an owner in another namespace is void to Kubernetes, and anybody can write one.
    """
    namespace, uid = owner
    own_jobs = tuple(job for job in jobs if (job.namespace, job.owner_uid) == (namespace, uid))
    job_uids = {job.uid for job in own_jobs}
    return Observed(
        jobs=own_jobs, pods=tuple(pod for pod in pods if pod.namespace == namespace and pod.job_uid in job_uids)
    )


def _put(entries: dict[str, tuple[str, V]], version: str, view: V) -> bool:
    earlier = entries.get(view.uid)
    if earlier is not None and _older(version, earlier[0]):
        return False
    entries[view.uid] = version, view
    return earlier is None or earlier[1] != view


def _at_least(version: str, other: str) -> bool:
    """Whether `version` is certainly `other` or newer."""
    return version.isdecimal() and other.isdecimal() and int(version) >= int(other)


def _older(version: str, other: str) -> bool:
    """Whether `version` is certainly older than `other`; Kubernetes orders them as numbers."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
