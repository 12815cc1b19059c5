"""Which events of watches and objects of lists are dropped: those that the cache knows or does not keep."""

from typing import Any

import pytest

from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_filter import EventFilter
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.work_queue import WorkQueue
from unit.control.builders import a_finetunejob, a_job, a_pod, finished_status


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.fixture
def event_handler(cache: Cache) -> EventHandler:
    return EventHandler(cache, WorkQueue(clock=lambda: 0.0, random=lambda: 0.0))


def test_our_own_write_is_dropped_and_a_later_version_passes(cache: Cache, event_handler: EventHandler) -> None:
    event_filter = EventFilter(cache, "finetunejobs")
    assert event_filter.is_new("ADDED", a_finetunejob(version=4))
    event_handler.finetunejob(None, a_finetunejob(version=5))  # the answer to our write came first
    assert not event_filter.is_new("MODIFIED", a_finetunejob(version=4))
    assert not event_filter.is_new("MODIFIED", a_finetunejob(version=5))
    assert event_filter.is_new("MODIFIED", a_finetunejob(version=6))
    assert event_filter.is_new("DELETED", a_finetunejob(version=5))


def test_a_new_object_with_the_same_name_passes_whatever_its_version(cache: Cache, event_handler: EventHandler) -> None:
    event_handler.finetunejob("ADDED", a_finetunejob(uid="uid-1", version=9))
    assert EventFilter(cache, "finetunejobs").is_new("ADDED", a_finetunejob(uid="uid-2", version=3))


@pytest.mark.parametrize(("plural", "made"), [("jobs", a_job), ("pods", a_pod)])
def test_a_child_passes_when_its_view_changes(
    plural: str, made: Any, cache: Cache, event_handler: EventHandler
) -> None:
    event_handler.finetunejob("ADDED", a_finetunejob())
    event_filter = EventFilter(cache, plural)
    assert event_filter.is_new("ADDED", made(version=5))
    assert not event_filter.is_new("MODIFIED", made(version=6)), "the same view"
    deleting = made(version=7)
    deleting["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    assert event_filter.is_new("MODIFIED", deleting)
    assert event_filter.is_new("DELETED", made(version=8))
    assert event_filter.is_new("ADDED", made(version=9))


def test_a_view_that_changes_back_passes_again(cache: Cache, event_handler: EventHandler) -> None:
    event_handler.finetunejob("ADDED", a_finetunejob())
    event_filter = EventFilter(cache, "pods")
    assert [event_filter.is_new("MODIFIED", a_pod(version=n, phase=phase)) for n, phase in enumerate("ABAB")] == [
        True
    ] * 4


def test_a_child_that_is_cached_from_a_response_is_dropped(cache: Cache, event_handler: EventHandler) -> None:
    event_handler.finetunejob("ADDED", a_finetunejob())
    event_handler.job(None, a_job(version=5))
    event_filter = EventFilter(cache, "jobs")
    assert not event_filter.is_new("ADDED", a_job(version=5))
    assert not event_filter.is_new("MODIFIED", a_job(version=6)), "counters only"
    assert event_filter.is_new("MODIFIED", a_job(version=7, complete=True))


def test_each_connection_has_a_filter_of_its_own(cache: Cache, event_handler: EventHandler) -> None:
    event_handler.finetunejob("ADDED", a_finetunejob())
    assert EventFilter(cache, "pods").is_new("MODIFIED", a_pod(version=5))
    # Meanwhile the pod may have been something else.
    assert EventFilter(cache, "pods").is_new("MODIFIED", a_pod(version=7))


def test_children_of_a_finished_job_are_dropped_until_it_runs_again(cache: Cache, event_handler: EventHandler) -> None:
    event_filter = EventFilter(cache, "pods")
    assert event_filter.is_new("ADDED", a_pod(version=2))
    event_handler.finetunejob("MODIFIED", a_finetunejob(version=3, status=finished_status()))
    for type_ in (None, "MODIFIED", "DELETED"):
        assert not event_filter.is_new(type_, a_pod(version=4))
    cache.keep_children(("team", "uid-1"))
    assert event_filter.is_new("MODIFIED", a_pod(version=5))


def test_children_of_an_unknown_job_pass(cache: Cache) -> None:
    assert EventFilter(cache, "jobs").is_new(None, a_job())


def test_objects_without_our_labels_are_dropped(cache: Cache) -> None:
    foreign = a_pod()
    del foreign["metadata"]["labels"]
    assert not EventFilter(cache, "pods").is_new("ADDED", foreign)
