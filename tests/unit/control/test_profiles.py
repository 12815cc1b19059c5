"""Profiles from the cache to the plan: a run is resolved when it begins, and never again."""

from typing import Any

import pytest

from finetune_operator.api.finetunejob import SpecError
from finetune_operator.api.reasons import Phase
from finetune_operator.api.spec import ProfileKind
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.profiles import ProfileCache
from finetune_operator.control.informer.record import finetunejob_record
from finetune_operator.control.work_queue import WorkQueue
from finetune_trainer.contract.failure import FailureReason
from unit.reconcile.world import World, a_job, checked, failed, raw_job, succeeded

NAMESPACE = "team-a"


def a_profile(
    name: str = "team", version: int = 1, namespace: str = NAMESPACE, default: bool = False, **spec: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "resourceVersion": str(version),
            "generation": version,
            "creationTimestamp": "2026-12-01T10:00:00Z",
            "annotations": {"finetune.dev/is-default-profile": "true"} if default else {},
        },
        "spec": spec,
    }


class Operator:
    """A job that is read through its record and the cache of profiles, as the controller does."""

    def __init__(self, **spec: Any) -> None:
        self.profiles = ProfileCache()
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue(clock=lambda: 0.0, random=lambda: 0.0)
        self.events = EventHandler(self.cache, self.queue, self.profiles)
        self.raw = raw_job(**spec)
        self.world = World(a_job())

    def edit(self, **spec: Any) -> None:
        self.raw["spec"].update(spec)
        self.raw["metadata"]["generation"] += 1

    def stored(self) -> dict[str, Any]:
        return {**self.raw, "status": self.world.status.to_dict()}

    def step(self) -> World:
        record = finetunejob_record(self.stored())
        if record.settled:
            return self.world
        self.world.job = record.finetunejob(self.profiles.of)
        self.world.step()
        return self.world

    def steps(self, times: int = 3) -> World:
        for _ in range(times):
            self.step()
        return self.world

    def queued(self) -> list[Key]:
        keys = []
        while (key := self.queue.get_nowait()) is not None:
            self.queue.done(key)
            keys.append(key)
        return keys


def test_what_the_profile_supplies_is_recorded_and_reaches_pod_recipe_and_status() -> None:
    operator = Operator()
    operator.profiles.put(
        ProfileKind.CLUSTER,
        a_profile("standard", default=True, storage={"region": "eu-west-1"}, lora={"rank": 8}),
    )
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(default=True, scheduling={"priorityClassName": "batch"}))
    world = operator.step()
    profile = world.status.profile
    assert profile is not None
    assert (profile.display, profile.values) == (
        "standard, team",
        '{"lora":{"rank":8},"storage":{"region":"eu-west-1"},"scheduling":{"priorityClassName":"batch"}}',
    )
    recipe = world.recipe("support-bot-preflight-1")
    assert (recipe.lora.rank, recipe.storage.region) == (8, "eu-west-1")
    assert recipe.profile is not None
    assert recipe.profile.digest == profile.digest
    assert [str(item) for item in recipe.profile.sources] == ["ClusterFineTuneProfile standard", "FineTuneProfile team"]
    pod = world.manifests["support-bot-preflight-1"]["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "batch"
    writes = world.status_writes
    operator.steps()
    assert world.status_writes == writes, "the next plans are empty"


def test_no_change_of_a_profile_reaches_a_run_that_has_begun() -> None:
    operator = Operator(preflight={"enabled": False}, retry={"limit": 1, "backoffSeconds": 0})
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(default=True, lora={"rank": 8}))
    world = operator.step()
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(version=2, default=True, lora={"rank": 64}))
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("new", default=True, training={"maxSteps": 1}))
    world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=1)
    operator.steps()
    operator.profiles.remove(ProfileKind.NAMESPACED, NAMESPACE, "team", f"uid-{NAMESPACE}-team")
    operator.steps()
    assert world.made == ["support-bot-train-1", "support-bot-train-2"]
    recipes = [world.recipe(name) for name in world.made]
    assert [(item.lora.rank, item.training.max_steps) for item in recipes] == [(8, None), (8, None)]


def test_another_run_is_resolved_anew() -> None:
    operator = Operator(preflight={"enabled": False})
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(default=True, lora={"rank": 8}))
    world = operator.step()
    world.finish(succeeded())
    operator.step()
    assert world.status.phase is Phase.SUCCEEDED
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(version=2, default=True, lora={"rank": 64}))
    operator.step()
    operator.edit(runToken="again")
    operator.steps()
    assert world.recipe(world.made[-1]).lora.rank == 64
    assert world.status.profile is not None
    assert world.status.profile.sources[0].generation == 2


def test_a_job_without_profiles_that_runs_already_gets_none() -> None:
    operator = Operator(preflight={"enabled": False}, retry={"limit": 1, "backoffSeconds": 0})
    world = operator.step()
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("new", default=True, lora={"rank": 8}))
    world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=1)
    operator.steps()
    assert world.recipe("support-bot-train-2").lora.rank == 16
    assert world.status.profile is None


def test_a_missing_profile_is_waited_for_and_the_time_begins_with_it() -> None:
    operator = Operator(profileRef={"kind": "FineTuneProfile", "name": "team"}, activeDeadlineSeconds=60)
    world = operator.steps()
    assert (world.status.phase, world.status.start_time, world.made) == (Phase.PENDING, None, [])
    condition = world.status.condition("Reconciling")
    assert condition is not None
    assert condition.reason == "ProfileNotFound"
    assert [event.reason for event in world.events] == ["ProfileNotFound"]
    world.later(3600)
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(lora={"rank": 8}))
    operator.step()
    assert world.recipe("support-bot-preflight-1").lora.rank == 8
    assert world.status.start_time == world.now


def test_a_rerun_waits_for_its_profile_too() -> None:
    operator = Operator(profileRef={"kind": "FineTuneProfile", "name": "team"}, preflight={"enabled": False})
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile())
    world = operator.step()
    world.finish(succeeded())
    operator.step()
    operator.profiles.remove(ProfileKind.NAMESPACED, NAMESPACE, "team", f"uid-{NAMESPACE}-team")
    operator.edit(runToken="again")
    operator.steps()
    assert (world.status.phase, len(world.made)) == (Phase.PENDING, 1)
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(version=2))
    operator.steps()
    assert world.made[-1] == "support-bot-train-2"


def test_an_invalid_profile_holds_the_job_until_it_is_corrected() -> None:
    operator = Operator()
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("standard", default=True, later={"field": 1}))
    world = operator.steps()
    condition = world.status.condition("Reconciling")
    assert condition is not None
    assert (condition.reason, world.made) == ("ProfileInvalid", [])
    assert 'ClusterFineTuneProfile standard cannot be used: spec.later: unknown field "spec.later"' in condition.message
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("standard", version=2, default=True))
    operator.step()
    assert world.made == ["support-bot-preflight-1"]


def test_a_job_above_a_ceiling_fails_before_it_has_a_pod() -> None:
    operator = Operator(resources={"gpus": 4})
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("standard", default=True, ceilings={"resources": {"gpus": 2}}))
    world = operator.step()
    assert (world.status.phase, world.made) == (Phase.FAILED, [])
    assert world.status.failure is not None
    assert world.status.failure.reason == "InvalidSpec"
    assert "spec.resources.gpus: is above the ceiling of ClusterFineTuneProfile standard, 2" in (
        world.status.failure.message
    )


@pytest.mark.parametrize("edited", ["between attempts", "between preflight and training"])
def test_a_ceiling_holds_for_what_is_raised_later(edited: str) -> None:
    preflight = edited == "between preflight and training"
    operator = Operator(preflight={"enabled": preflight}, retry={"limit": 1, "backoffSeconds": 0})
    operator.profiles.put(ProfileKind.CLUSTER, a_profile("standard", default=True, ceilings={"resources": {"gpus": 1}}))
    world = operator.step()
    operator.profiles.remove(ProfileKind.CLUSTER, "", "standard", f"uid-{NAMESPACE}-standard")
    operator.edit(resources={"gpus": 16})
    if preflight:
        world.finish(checked())
    else:
        world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=1)
    operator.steps()
    assert world.status.phase is Phase.FAILED
    assert len(world.made) == 1


def test_what_an_administrator_forbids_is_forbidden_in_a_profile_too() -> None:
    operator = Operator()
    operator.profiles.put(
        ProfileKind.NAMESPACED, a_profile(default=True, scheduling={"serviceAccountName": "cluster-admin"})
    )
    world = operator.step()
    assert (world.status.phase, world.made) == (Phase.FAILED, [])


def test_an_own_spec_that_is_invalid_is_refused_though_the_profile_is_missing() -> None:
    operator = Operator(profileRef={"kind": "FineTuneProfile", "name": "team"}, lora={"rank": 0})
    with pytest.raises(SpecError, match=r"spec\.lora\.rank"):
        operator.step()


def test_a_profile_of_another_namespace_is_not_seen() -> None:
    cache = ProfileCache()
    cache.put(ProfileKind.NAMESPACED, a_profile(namespace="team-b", default=True))
    cache.put(ProfileKind.CLUSTER, a_profile("standard"))
    assert [item.name for item in cache.of(NAMESPACE)] == ["standard"]


def test_an_older_version_of_a_profile_changes_nothing() -> None:
    cache = ProfileCache()
    assert cache.put(ProfileKind.NAMESPACED, a_profile(version=5, retry={"limit": 1}))
    assert not cache.put(ProfileKind.NAMESPACED, a_profile(version=4, retry={"limit": 9}))
    assert not cache.put(ProfileKind.NAMESPACED, a_profile(version=5, retry={"limit": 1}))
    assert not cache.remove(ProfileKind.NAMESPACED, NAMESPACE, "team", "another-uid")
    assert list(cache.prune(ProfileKind.NAMESPACED, (), "4", None)) == []
    assert [item.name for item in cache.prune(ProfileKind.NAMESPACED, (), "6", None)] == ["team"]


def test_an_event_of_a_profile_marks_the_jobs_that_have_not_begun() -> None:
    operator = Operator(profileRef={"kind": "FineTuneProfile", "name": "team"})
    operator.step()
    operator.events.finetunejob("ADDED", operator.stored())
    begun = raw_job()
    begun["metadata"] = {**begun["metadata"], "name": "other", "uid": "other"}
    operator.events.finetunejob("ADDED", {**begun, "status": {"startTime": "2026-12-01T10:00:00Z", "attempt": 1}})
    operator.queued()
    operator.events.profile("ADDED", a_profile(namespace="team-b"))
    assert operator.queued() == []
    operator.events.profile("ADDED", a_profile())
    assert operator.queued() == [(NAMESPACE, "support-bot")]
    operator.events.profile("MODIFIED", a_profile())
    assert operator.queued() == []
    operator.events.cluster_profile("ADDED", a_profile("standard"))
    assert operator.queued() == [(NAMESPACE, "support-bot")]
    operator.events.profile("DELETED", a_profile())
    assert operator.queued() == [(NAMESPACE, "support-bot")]


def test_retention_of_a_profile_counts_for_the_children_of_an_ended_job() -> None:
    operator = Operator(preflight={"enabled": False})
    operator.profiles.put(ProfileKind.NAMESPACED, a_profile(default=True, retention={"ttlSecondsAfterFinished": 60}))
    world = operator.step()
    world.finish(succeeded())
    operator.step()
    record = finetunejob_record(operator.stored())
    assert (record.finished, record.keeps_children, record.settled) == (True, False, False)
    world.later(61)
    operator.step()
    assert world.jobs == {}
