"""Cache, records and event_handler: what is news, what is kept, what goes."""

import json
from typing import Any

import pytest

from finetune_operator.api.finetunejob import SpecError
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.record import finetunejob_record
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.reconcile.observed import JobView, Observed, PodView
from unit.control.builders import a_finetunejob, a_job, a_pod, finished_status

KEY = ("team", "job")
OWNER = ("team", "uid-1")


class Operator:
    """Cache, queue and event_handler together."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(clock=lambda: 0.0, random=lambda: 0.0)
        self.event_handler = EventHandler(self.cache, self.queue)

    def queued(self) -> list[Key]:
        """Takes the keys that are in the work queue, and marks them done."""
        keys = []
        while (key := self.queue.get_nowait()) is not None:
            self.queue.done(key)
            keys.append(key)
        return keys


@pytest.fixture
def operator() -> Operator:
    return Operator()


def test_a_new_job_is_enqueued_and_our_own_write_to_it_is_not(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    assert operator.queued() == [KEY]
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob())
    operator.event_handler.finetunejob(None, a_finetunejob(version=2))
    assert operator.queued() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": {"suspend": True}, "generation": 2},
        {"status": {"phase": "Running"}},
        {"spec": {"retention": {"ttlSecondsAfterFinished": 5}}, "generation": 2},
    ],
)
def test_a_change_enqueues_the_job(operator: Operator, changed: dict[str, Any]) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.queued()
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=2, **changed))
    assert operator.queued() == [KEY]


def test_a_progress_record_alone_is_cached_and_not_enqueued(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob(status={"phase": "Running"}))
    operator.queued()
    progress = {"step": 7, "heartbeatTime": "2026-11-24T10:00:05Z"}
    operator.event_handler.finetunejob(
        "MODIFIED", a_finetunejob(version=2, status={"phase": "Running", "progress": progress})
    )
    assert operator.queued() == []
    record = operator.cache.finetunejob(KEY)
    assert record is not None
    job = record.finetunejob()
    assert job.status.progress is not None
    assert job.status.progress.step == 7


def test_an_older_version_changes_nothing(operator: Operator) -> None:
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=20, generation=2, spec={"suspend": True}))
    operator.queued()
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=9))
    assert operator.queued() == []
    record = operator.cache.finetunejob(KEY)
    assert record is not None
    assert record.generation == 2


def test_a_record_gives_the_object_back(operator: Operator) -> None:
    raw = a_finetunejob(spec={"runToken": "ü"}, status={"phase": "Running", "progress": {"step": 1}})
    record = finetunejob_record(raw)
    assert json.loads(record.spec) == raw["spec"]
    assert record.raw_status() == raw["status"]
    assert record.finetunejob().spec.run_token == "ü"


@pytest.mark.parametrize(
    ("raw", "settled"),
    [
        (a_finetunejob(), False),
        (a_finetunejob(status=finished_status()), True),
        (a_finetunejob(generation=2, status=finished_status(generation=1)), False),
        (a_finetunejob(spec={"runToken": "again"}, status=finished_status()), False),
        (a_finetunejob(spec={"runToken": "again"}, status=finished_status(run_token="again")), True),
        (a_finetunejob(spec={"retention": {"ttlSecondsAfterFinished": 60}}, status=finished_status()), False),
        (a_finetunejob(spec={"retention": {"ttlSecondsAfterFinished": -1}}, status=finished_status()), True),
        (a_finetunejob(spec={"retention": "none"}, status=finished_status()), True),
        (a_finetunejob(spec={"managedBy": "kueue.x-k8s.io/multikueue"}), True),
        (a_finetunejob(spec={"managedBy": "finetune.dev/operator"}), False),
        (a_finetunejob(deleting=True), True),
    ],
)
def test_a_settled_job_is_never_enqueued(operator: Operator, raw: dict[str, Any], settled: bool) -> None:
    record = finetunejob_record(raw)
    assert record.settled is settled
    assert (record.spec == b"") is settled, "of a settled job nothing but its identity is kept"
    operator.event_handler.finetunejob("ADDED", raw)
    assert operator.queued() == ([] if settled else [KEY])


def test_the_ttl_is_read_from_a_spec_with_other_errors() -> None:
    spec = {"retention": {"ttlSecondsAfterFinished": 60, "keep": 3}, "training": {"epoch": 3}}
    record = finetunejob_record(a_finetunejob(spec=spec))
    assert record.ttl_seconds == 60
    with pytest.raises(SpecError):
        record.finetunejob()


def test_a_child_enqueues_its_job_when_its_view_changes(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.queued()
    operator.event_handler.job("ADDED", a_job())
    assert operator.queued() == [KEY]
    operator.event_handler.job("MODIFIED", a_job(version=2))
    assert operator.queued() == []
    operator.event_handler.job("MODIFIED", a_job(version=3, complete=True))
    assert operator.queued() == [KEY]
    operator.event_handler.pod("ADDED", a_pod())
    assert operator.queued() == [KEY]
    operator.event_handler.pod("DELETED", a_pod())
    assert operator.queued() == [KEY]
    operator.event_handler.pod("DELETED", a_pod())
    assert operator.queued() == []


def test_only_what_the_job_owns_is_observed(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.event_handler.job("ADDED", a_job())
    operator.event_handler.pod("ADDED", a_pod())
    forged_job = a_job("forged", uid="job-uid-2")
    forged_job["metadata"]["ownerReferences"] = []
    operator.event_handler.job("ADDED", forged_job)
    operator.event_handler.pod("ADDED", a_pod("forged", uid="pod-uid-2", job_uid="job-uid-2"))
    observed = operator.cache.observed(OWNER)
    assert observed is not None
    assert [job.name for job in observed.jobs] == ["job-train-1"]
    assert [pod.name for pod in observed.pods] == ["job-train-1-abcde"]


def test_children_of_another_namespace_are_not_observed(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.queued()
    forged_job, forged_pod = a_job(), a_pod()
    for forged in (forged_job, forged_pod):
        forged["metadata"]["namespace"] = "attacker"
    operator.event_handler.job("ADDED", forged_job)
    operator.event_handler.pod("ADDED", forged_pod)
    assert operator.queued() == []
    assert operator.cache.observed(OWNER) == Observed()
    assert not operator.cache.has_children(OWNER)


def test_children_of_a_settled_job_are_not_kept_and_are_read_when_it_is_active_again(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.event_handler.job("ADDED", a_job())
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=5, status=finished_status()))
    operator.event_handler.pod("ADDED", a_pod())
    operator.queued()
    assert not operator.cache.keeps_children(OWNER)
    operator.event_handler.finetunejob(
        "MODIFIED", a_finetunejob(version=6, generation=2, spec={"runToken": "again"}, status=finished_status())
    )
    assert operator.queued() == [KEY]
    assert operator.cache.observed(OWNER) is None
    operator.cache.keep_children(OWNER)
    assert operator.cache.observed(OWNER) == Observed()


def test_a_new_job_with_the_same_name_has_no_children_of_the_old_one(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob(uid="old", version=1))
    operator.event_handler.job("ADDED", a_job(owner="old"))
    operator.queued()
    operator.event_handler.finetunejob("ADDED", a_finetunejob(uid="new", version=5))
    assert operator.queued() == [KEY]
    operator.event_handler.finetunejob("DELETED", a_finetunejob(uid="old", version=4))
    record = operator.cache.finetunejob(KEY)
    assert record is not None
    assert record.uid == "new"
    assert operator.cache.observed(("team", "new")) == Observed()
    assert operator.cache.key_of(("team", "old")) is None


def test_prune_removes_objects_that_are_not_listed_and_keeps_newer_ones(operator: Operator) -> None:
    for index, version in ((1, 10), (2, 20), (3, 30)):
        operator.event_handler.finetunejob("ADDED", a_finetunejob(f"job-{index}", uid=f"uid-{index}", version=version))
    gone = operator.cache.prune_finetunejobs({"uid-1"}, "25", None)
    assert gone == [("team", "job-2")]
    assert operator.cache.prune_finetunejobs(set(), "99", "elsewhere") == []
    assert operator.cache.finetunejob(("team", "job-3")) is not None


def test_prune_children_returns_the_owners_of_removed_children(operator: Operator) -> None:
    operator.event_handler.finetunejob("ADDED", a_finetunejob())
    operator.event_handler.job("ADDED", a_job())
    operator.event_handler.pod("ADDED", a_pod())
    assert operator.cache.prune_children(PodView, {"pod-uid-1"}, "50", None) == set()
    assert operator.cache.prune_children(PodView, set(), "50", None) == {OWNER}
    observed = operator.cache.observed(OWNER)
    assert observed is not None
    assert (len(observed.jobs), len(observed.pods)) == (1, 0)
    assert operator.cache.prune_children(JobView, set(), "50", None, owner=OWNER) == {OWNER}
    assert not operator.cache.has_children(OWNER)


def test_a_large_spec_is_not_kept_and_its_changes_are_seen(operator: Operator) -> None:
    spec = {"evaluation": {"samplePrompts": ["x" * 2000] * 3}}
    operator.event_handler.finetunejob("ADDED", a_finetunejob(version=1, spec=spec))
    assert operator.queued() == [KEY]
    record = operator.cache.finetunejob(KEY)
    assert record is not None
    assert (record.spec, record.has_spec) == (b"", False)
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=2, spec=spec))
    assert operator.queued() == []
    operator.event_handler.finetunejob("MODIFIED", a_finetunejob(version=3, generation=2, spec=spec))
    assert operator.queued() == [KEY]


def test_a_spec_that_is_too_large_is_not_kept_and_refused_by_its_size(operator: Operator) -> None:
    """Ten thousand jobs of one tenant must not fill the operator's memory."""
    large = a_finetunejob(spec={"evaluation": {"samplePrompts": ["x" * 70_000]}})
    record = finetunejob_record(large)
    assert record.spec == b""
    with pytest.raises(SpecError, match="spec: must have at most 65536 bytes as JSON"):
        record.finetunejob()
    operator.event_handler.finetunejob("ADDED", large)
    assert operator.queued() == [KEY], "it is to be ended, with this reason"
