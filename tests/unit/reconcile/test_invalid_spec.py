"""A stored spec that is invalid ends its run as every other failure does."""

from dataclasses import replace

import pytest

from finetune_operator.api.finetunejob import SpecError, parse_job
from finetune_operator.api.reasons import ConditionType, Reason
from finetune_operator.api.status import Condition, ConditionStatus
from finetune_operator.reconcile.invalid_spec import reconcile_invalid
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.plan import Deletion, Plan
from finetune_operator.reconcile.plan_builder import RunPlanBuilder
from unit.reconcile.world import World, a_job, raw_job, succeeded


def spec_error(**training: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_job(raw_job(training=training or {"learningRate": 2e-4, "epochs": "3"}))
    return caught.value


INVALID = spec_error()
UNKNOWN_FIELD = spec_error(optimiser2="new", epochs="3")


def invalidate(
    world: World, error: SpecError = INVALID, *, run_token: str | None = None, ttl_seconds: int | None = None
) -> Plan:
    """One reconcile with an invalid spec, carried out."""
    plan = reconcile_invalid(
        error,
        RunPlanBuilder(
            generation=2,
            run_token=run_token,
            ttl_seconds=ttl_seconds,
            observed=Observed(jobs=tuple(world.jobs.values()), pods=tuple(world.pods.values())),
            now=world.now,
            status=world.status,
        ),
    )
    for deletion in plan.delete:
        world.remove(deletion.name)
    world.job = replace(world.job, status=plan.status)
    return plan


@pytest.fixture
def world() -> World:
    """A training on two GPUs that has run for 30 seconds."""
    world = World(a_job(preflight={"enabled": False}, resources={"gpus": 2}))
    world.step()
    world.run()
    world.step()
    world.later(30)
    return world


def test_the_run_fails_with_every_problem_and_its_child_is_deleted(world: World) -> None:
    plan = invalidate(world)
    status = plan.status
    assert (status.observed_generation, status.phase, status.completion_time) == (2, "Failed", world.now)
    assert status.failure is not None
    assert status.failure.reason == "InvalidSpec"
    assert "spec.training.learningRate" in status.failure.message
    assert "spec.training.epochs" in status.failure.message
    assert [status.is_true(type_) for type_ in ("Finished", "Stalled", "Succeeded", "Ready")] == [
        True,
        True,
        False,
        False,
    ]
    assert status.condition("Reconciling") is None
    assert plan.delete == (Deletion(name="support-bot-train-1", uid="uid-support-bot-train-1"),)
    assert [event.reason for event in plan.events] == ["InvalidSpec"]


def test_the_open_attempt_ends_with_its_gpu_seconds(world: World) -> None:
    status = invalidate(world).status
    attempt = status.attempts[-1]
    assert (attempt.end_time, attempt.reason, attempt.counted) == (world.now, "InvalidSpec", True)
    assert (status.counted_failures, status.gpu_seconds) == (1, 2 * 30)


def test_the_conditions_keep_their_order(world: World) -> None:
    later = Condition(type="OfALaterVersion", status="True", reason="New", message="", last_transition_time=world.now)
    world.job = replace(
        world.job, status=world.status.model_copy(update={"conditions": [later, *reversed(world.status.conditions)]})
    )
    types = [item.type for item in invalidate(world).status.conditions]
    assert types == [*(type_ for type_ in ConditionType if type_ in types), "OfALaterVersion"]


def test_a_training_that_has_succeeded_already_stays_a_success(world: World) -> None:
    world.finish(succeeded())
    assert invalidate(world).status.phase == "Succeeded"


def test_its_children_are_deleted_when_their_ttl_has_passed() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.finish("", exit_code=1)
    plan = invalidate(world, ttl_seconds=60)
    assert (plan.status.phase, plan.delete, plan.requeue_after) == ("Failed", (), 60)
    world.later(60)
    assert [deletion.name for deletion in invalidate(world, ttl_seconds=60).delete] == ["support-bot-train-1"]


def test_a_finished_run_stays_finished_and_its_conditions_have_the_new_generation(world: World) -> None:
    world.finish(succeeded())
    world.step()
    before = world.status
    plan = invalidate(world)
    assert (plan.status.phase, plan.status.completion_time) == ("Succeeded", before.completion_time)
    assert {item.observed_generation for item in plan.status.conditions} == {2}
    assert (plan.delete, plan.events) == ((), ())
    assert invalidate(world).status == plan.status


def test_another_run_token_with_an_invalid_spec_fails_again(world: World) -> None:
    invalidate(world)
    world.later(3600)
    plan = invalidate(world, run_token="again")
    assert (plan.status.phase, plan.status.run_token, plan.status.completion_time) == ("Failed", "again", world.now)
    assert [event.reason for event in plan.events] == ["RunTokenChanged", "InvalidSpec"]


def test_a_field_of_a_newer_crd_ends_nothing_and_says_what_to_do(world: World) -> None:
    before = world.status
    plan = invalidate(world, UNKNOWN_FIELD)
    assert (plan.delete, plan.status.phase, plan.status.observed_generation) == ((), before.phase, 1)
    assert plan.status.attempts == before.attempts
    shown = {item.type: (item.status, item.reason) for item in plan.status.conditions}
    assert {
        "Succeeded": (ConditionStatus.UNKNOWN, Reason.OPERATOR_OUTDATED),
        "Ready": (ConditionStatus.UNKNOWN, Reason.OPERATOR_OUTDATED),
        "Finished": (ConditionStatus.FALSE, Reason.OPERATOR_OUTDATED),
        "Reconciling": (ConditionStatus.TRUE, Reason.OPERATOR_OUTDATED),
    }.items() <= shown.items()
    ready = plan.status.condition("Ready")
    assert ready is not None
    assert "upgrade the operator" in ready.message
    assert ready.message.endswith("It does not understand spec.training.epochs, spec.training.optimiser2")
    world.later(3600)
    assert invalidate(world, UNKNOWN_FIELD).status == plan.status, "said once"


def test_a_new_job_with_a_field_of_a_newer_crd_waits_and_a_finished_one_stays_finished(world: World) -> None:
    new = invalidate(World(a_job()), UNKNOWN_FIELD).status
    assert (new.phase, new.observed_generation, new.start_time) == ("Pending", -1, None)
    ended = invalidate(world).status
    assert invalidate(world, UNKNOWN_FIELD, run_token="again").status == ended
