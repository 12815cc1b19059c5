"""The policy, one behaviour a test: what a job does when its children do this and that."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase
from finetune_operator.api.status import Condition, ConditionStatus
from finetune_operator.reconcile.child_state import NO_POD_AFTER
from finetune_trainer.contract.failure import FAILURES, FailureReason, Policy
from unit.reconcile.world import CONFIG, OUTPUT, START, World, a_job, checked, failed, reused, succeeded


def phase_of(world: World) -> Phase | None:
    return world.status.phase


def conditions(world: World) -> dict[str, str]:
    return {item.type: str(item.status) for item in world.status.conditions}


def test_a_job_is_checked_then_trained_then_succeeds() -> None:
    world = World(a_job())
    world.step()
    assert world.made == ["support-bot-preflight-1"]
    assert phase_of(world) is Phase.PREFLIGHT
    world.finish(checked(rows=42))
    world.step()
    assert world.made == ["support-bot-preflight-1", "support-bot-train-1"]
    assert world.status.is_true(ConditionType.PREFLIGHT_PASSED)
    assert world.status.preflight is not None
    assert world.status.preflight.rows == 42
    world.run()
    world.step()
    assert phase_of(world) is Phase.RUNNING
    world.later(60)
    world.finish(succeeded())
    world.step()
    assert phase_of(world) is Phase.SUCCEEDED
    assert world.status.output is not None
    assert world.status.output.uri == OUTPUT.uri
    assert world.status.gpu_seconds == 60
    assert conditions(world) == {
        "Succeeded": "True",
        "Ready": "True",
        "Finished": "True",
        "PreflightPassed": "True",
    }
    assert world.status_writes + len(world.made) <= 6


def test_the_cost_adds_up_over_attempts_and_runs_each_at_the_price_of_its_start() -> None:
    dear = replace(CONFIG, gpu_prices={"nvidia.com/gpu": Decimal("3.60")})
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 1, "backoffSeconds": 0}), config=dear)
    world.step()
    assert (world.status.gpu_price, world.status.cost) == ("3.60", None)
    world.run()
    world.step()
    world.config = replace(CONFIG, gpu_prices={"nvidia.com/gpu": Decimal("7.20")})
    world.later(100)
    world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=20)
    world.step()
    assert world.status.cost == "0.1000", "a new price is for new attempts"
    world.step()
    world.run()
    world.later(50)
    world.finish(succeeded())
    world.step()
    assert (world.status.gpu_seconds, world.status.cost) == (150, "0.2000")
    world.edit(preflight={"enabled": False}, runToken="again")
    world.step()
    assert (world.status.gpu_seconds, world.status.cost) == (150, "0.2000")


def test_the_status_says_since_when_the_phase_lasts() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    assert (world.status.phase, world.status.last_phase_transition_time) == (Phase.STARTING, START)
    world.later(5)
    world.pod(unschedulable="0/3 nodes")
    world.step()
    assert (world.status.phase, world.status.last_phase_transition_time) == (Phase.STARTING, START)
    world.later(5)
    world.run()
    world.step()
    assert (world.status.phase, world.status.last_phase_transition_time) == (Phase.RUNNING, world.now)


def test_every_attempt_trains_on_the_commit_that_preflight_saw() -> None:
    data = {"uri": "hf://datasets/org/rows", "revision": "main"}
    job = a_job(
        model={"uri": "hf://org/tiny", "revision": "main"}, dataset=data, retry={"limit": 1, "backoffSeconds": 0}
    )
    world = World(job)
    world.step()
    assert world.recipe("support-bot-preflight-1").model.revision == "main"
    assert world.recipe("support-bot-preflight-1").dataset_revisions == {}
    world.finish(checked(model_revision="c0ffee", dataset_revisions={"org/rows": "bead"}))
    world.step()
    world.finish(failed(FailureReason.STORAGE_UNAVAILABLE), exit_code=20)
    world.step()
    world.step()
    assert world.made[1:] == ["support-bot-train-1", "support-bot-train-2"]
    for name in world.made[1:]:
        assert world.recipe(name).model.revision == "c0ffee"
        assert world.recipe(name).dataset_revisions == {"org/rows": "bead"}
    assert world.status.preflight is not None
    assert world.status.preflight.model_revision == "c0ffee"


def test_without_preflight_one_job_and_three_status_writes_are_all() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.run()
    world.step()
    world.finish(succeeded())
    world.step()
    assert world.made == ["support-bot-train-1"]
    assert world.status_writes == 3


@pytest.mark.parametrize("phase", ["start", "preflight", "trained", "running", "end"])
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(phase: str) -> None:
    world = World(a_job())
    world.step()
    if phase != "start":
        world.pod(phase="Running", running_since=world.now)
        if phase != "preflight":
            world.finish(checked())
            world.step()
            if phase != "trained":
                world.run()
                world.step()
                if phase == "end":
                    world.finish(succeeded())
    world.step()
    again = world.plan()
    assert again.apply == ()
    assert again.delete == ()
    assert again.events == ()
    assert again.status == world.status


def test_an_operator_that_dies_between_apply_and_status_makes_no_second_job() -> None:
    world = World(a_job())
    before = world.job
    world.step()
    world.job = before
    world.step()
    assert world.made == ["support-bot-preflight-1"]
    assert world.status.attempt == 1


def test_an_adapter_that_is_there_ends_the_job_without_training() -> None:
    world = World(a_job())
    world.step()
    world.finish(reused())
    world.step()
    assert phase_of(world) is Phase.SUCCEEDED
    succeeded_ = world.status.condition(ConditionType.SUCCEEDED)
    assert succeeded_ is not None
    assert succeeded_.reason == "OutputAlreadyExists"
    assert world.made == ["support-bot-preflight-1"]


def test_bad_data_fails_at_once_with_facts_and_remedy() -> None:
    world = World(a_job())
    world.step()
    world.finish(failed(FailureReason.DATASET_INVALID, "train.jsonl:7312: found '{', expected JSON"), exit_code=13)
    world.step()
    assert phase_of(world) is Phase.FAILED
    assert world.status.failure is not None
    assert "train.jsonl:7312" in world.status.failure.message
    assert FAILURES[FailureReason.DATASET_INVALID].remedy in world.status.failure.message
    assert world.status.failure.exit_code == 13
    assert conditions(world) == {
        "Succeeded": "False",
        "Ready": "False",
        "Stalled": "True",
        "Finished": "True",
        "PreflightPassed": "False",
    }
    assert world.made == ["support-bot-preflight-1"]


def test_a_failure_that_may_pass_is_retried_up_to_the_limit_with_growing_pauses() -> None:
    world = World(a_job(retry={"limit": 2, "backoffSeconds": 10}, preflight={"enabled": False}))
    pauses = []
    for _ in range(3):
        world.step()
        world.run()
        world.finish("boom", exit_code=1)
        world.step()
        if world.requeue_after is not None:
            pauses.append(world.requeue_after)
            world.later(world.requeue_after - 1)
            assert world.step().apply == ()
            world.later(1)
    assert pauses == [10, 20]
    assert world.made == ["support-bot-train-1", "support-bot-train-2", "support-bot-train-3"]
    assert phase_of(world) is Phase.FAILED
    assert world.status.restarts == 2
    assert world.status.failure is not None
    assert world.status.failure.reason == "InternalError"
    assert "boom" in world.status.failure.message
    assert [(item.number, item.reason, item.counted) for item in world.status.attempts] == [
        (1, "InternalError", True),
        (2, "InternalError", True),
        (3, "InternalError", True),
    ]


def test_preemption_is_never_counted() -> None:
    world = World(a_job(retry={"limit": 0, "backoffSeconds": 1}, preflight={"enabled": False}))
    for _ in range(5):
        world.step()
        world.finish(failed(FailureReason.PREEMPTED), exit_code=30)
        world.step()
        world.later(1)
    assert phase_of(world) is Phase.RETRYING
    assert world.status.counted_failures == 0
    assert world.status.attempt == 5


def test_the_second_memory_kill_is_the_last() -> None:
    world = World(a_job(retry={"limit": 5, "backoffSeconds": 0}, preflight={"enabled": False}))
    for _ in range(2):
        world.step()
        world.finish("", exit_code=137, reason="OOMKilled")
        world.step()
    assert phase_of(world) is Phase.FAILED
    assert world.status.failure is not None
    assert world.status.failure.reason == "HostOutOfMemory"
    assert "resources.memory" in world.status.failure.message


@pytest.mark.parametrize(
    ("code", "log", "reason"),
    [
        (1, "Error out of memory at line 90 in file /src/csrc/ops.cu", FailureReason.GPU_OUT_OF_MEMORY),
        (134, "what():  [Rank 0] NCCL error: remote process exited", FailureReason.PEER_FAILED),
        (134, "Fatal Python error: Aborted", FailureReason.KILLED),
        (137, "Error out of memory at line 90 in file /src/csrc/ops.cu", FailureReason.KILLED),
    ],
)
def test_the_end_of_the_log_tells_why_a_library_ended_the_container(code: int, log: str, reason: FailureReason) -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    world.finish(log, exit_code=code)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == reason
    assert log in world.status.failure.message


@pytest.mark.parametrize("reason", [item for item in FailureReason if FAILURES[item].exit_code is not None])
def test_every_exit_code_becomes_its_reason_without_a_message(reason: FailureReason) -> None:
    code = FAILURES[reason].exit_code
    assert code is not None
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.finish("", exit_code=int(code))
    world.step()
    assert world.status.attempts[-1].reason == reason
    fails = FAILURES[reason].policy is Policy.FAIL
    assert (phase_of(world) is Phase.FAILED) == fails


def test_suspension_removes_the_pods_and_resuming_starts_a_new_attempt() -> None:
    world = World(a_job())
    world.step()
    world.finish(checked())
    world.step()
    world.run()
    world.step()
    world.edit(suspend=True)
    world.step()
    assert world.jobs == {}
    assert phase_of(world) is Phase.SUSPENDED
    assert conditions(world)["Suspended"] == "True"
    assert conditions(world)["Finished"] == "False"
    assert world.plan().status == world.status
    world.later(100)
    world.edit(suspend=False)
    world.step()
    assert world.made[-1] == "support-bot-train-2"
    assert conditions(world)["Suspended"] == "False"
    world.finish(succeeded())
    world.step()
    assert phase_of(world) is Phase.SUCCEEDED
    assert world.status.counted_failures == 0


def test_a_job_that_is_suspended_from_the_start_makes_no_child() -> None:
    world = World(a_job(suspend=True))
    world.step()
    assert world.made == []
    assert phase_of(world) is Phase.SUSPENDED


def test_an_end_is_final_until_the_run_token_changes() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.finish(succeeded())
    world.step()
    world.remove("support-bot-train-1")
    world.edit(preflight={"enabled": True}, suspend=True)
    world.step()
    assert phase_of(world) is Phase.SUCCEEDED
    world.edit(runToken="again")
    world.step()
    assert world.made == ["support-bot-train-1", "support-bot-preflight-2"]
    assert world.status.restarts == 0
    assert world.status.output is None
    assert world.status.run_token == "again"


def test_children_go_when_their_time_has_come_and_nothing_trains_again() -> None:
    world = World(a_job(preflight={"enabled": False}, retention={"ttlSecondsAfterFinished": 60}))
    world.step()
    world.finish(succeeded())
    world.step()
    assert world.requeue_after == 60
    world.later(60)
    world.step()
    assert world.jobs == {}
    world.later(3600)
    world.step()
    assert world.made == ["support-bot-train-1"]
    assert phase_of(world) is Phase.SUCCEEDED


def test_a_deleted_child_is_an_uncounted_attempt() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"backoffSeconds": 0}))
    world.step()
    world.remove("support-bot-train-1")
    world.step()
    assert world.status.attempts[-1].reason == "PodLost"
    assert world.status.counted_failures == 0
    world.step()
    assert world.made == ["support-bot-train-1", "support-bot-train-2"]


def test_a_pod_on_a_lost_node_does_not_hold_the_job() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"backoffSeconds": 0}))
    world.step()
    world.pod(phase="Running", running_since=world.now, deletion_time=world.now, disruption="DeletionByTaintManager")
    world.step()
    assert phase_of(world) is Phase.RUNNING
    assert world.requeue_after == 30
    world.later(31)
    world.step()
    assert world.status.attempts[-1].reason == "PodLost"
    world.step()
    assert world.made[-1] == "support-bot-train-2"


def test_a_disrupted_pod_is_replaced_by_its_job_without_a_new_attempt() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    job = world.child()
    world.finish("", exit_code=30, disruption="EvictionByEvictionAPI")
    world.jobs[job.name] = job
    world.step()
    assert world.status.attempt == 1
    assert phase_of(world) is Phase.STARTING


def test_a_success_wins_over_deadline_suspension_and_refusal() -> None:
    for spec in ({"activeDeadlineSeconds": 100}, {"suspend": True}, {"resources": {"gpus": 2}}):
        world = World(a_job(preflight={"enabled": False}))
        world.step()
        world.finish(succeeded())
        world.edit(preflight={"enabled": False}, **spec)
        world.later(200)
        world.step()
        assert phase_of(world) is Phase.SUCCEEDED, spec


def test_an_edit_that_would_be_refused_waits_for_the_next_attempt() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.run()
    world.edit(preflight={"enabled": False}, scheduling={"serviceAccountName": "admin"})
    world.step()
    assert phase_of(world) is Phase.RUNNING
    world.finish("", exit_code=1)
    world.step()
    world.step()
    assert phase_of(world) is Phase.FAILED
    assert world.made == ["support-bot-train-1"]


def test_conditions_have_the_newest_generation_after_the_end_too() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.finish(succeeded())
    world.step()
    world.edit(preflight={"enabled": False}, retention={"ttlSecondsAfterFinished": 60})
    world.step()
    assert {item.observed_generation for item in world.status.conditions} == {2}
    finished = world.status.condition(ConditionType.FINISHED)
    assert finished is not None
    assert finished.status is ConditionStatus.TRUE


def test_time_spent_suspended_counts_against_no_deadline() -> None:
    world = World(a_job(preflight={"enabled": False}, suspend=True, activeDeadlineSeconds=100))
    world.step()
    world.later(1000)
    world.step()
    assert phase_of(world) is Phase.SUSPENDED
    world.edit(preflight={"enabled": False}, activeDeadlineSeconds=100)
    world.step()
    assert phase_of(world) is Phase.STARTING
    world.later(100)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "DeadlineExceeded"


def test_a_run_keeps_its_token_when_the_spec_asks_for_the_next_run() -> None:
    world = World(a_job(preflight={"enabled": False}, runToken="a", retry={"backoffSeconds": 0}))
    world.step()
    world.edit(preflight={"enabled": False}, runToken="b", retry={"backoffSeconds": 0})
    world.finish("", exit_code=1)
    world.step()
    world.step()
    recipes = [item["spec"]["template"]["metadata"]["annotations"] for item in world.manifests.values()]
    assert ['"runToken":"a"' in str(item) for item in recipes] == [True, True]


def test_a_preflight_without_a_report_is_none() -> None:
    world = World(a_job(retry={"backoffSeconds": 0}))
    world.step()
    world.finish(checked())
    world.pods.clear()
    world.step()
    assert world.status.attempts[-1].reason == "PodLost"
    world.step()
    assert world.made == ["support-bot-preflight-1", "support-bot-preflight-2"]


def test_a_job_without_a_pod_says_so_and_its_start_deadline_holds() -> None:
    """No event follows the creation of a Job whose pods are refused: the plan that creates it comes back by itself."""
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    assert world.requeue_after == 30
    world.later(31)
    world.step()
    reconciling = world.status.condition(ConditionType.RECONCILING)
    assert reconciling is not None
    assert reconciling.reason == "PodNotCreated"
    world.later(30)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"
    assert "quota" in world.status.failure.message


def test_a_job_without_a_pod_says_why_in_the_words_of_its_event() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    child = world.child()
    world.jobs[child.name] = replace(child, refusal="failed quota: compute: must specify limits.cpu for: trainer")
    world.later(31)
    world.step()
    reconciling = world.status.condition(ConditionType.RECONCILING)
    assert reconciling is not None
    assert reconciling.message.endswith(
        "support-bot-train-1: failed quota: compute: must specify limits.cpu for: trainer"
    )
    world.later(30)
    world.step()
    assert world.status.failure is not None
    assert "must specify limits.cpu" in world.status.failure.message


def test_a_start_deadline_of_seconds_says_why_there_is_no_pod() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=10))
    world.step()
    world.later(9)
    assert world.step().requeue_after == 1
    world.later(1)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"
    assert "PodNotCreated: Kubernetes has created no pod" in world.status.failure.message


def test_a_start_deadline_says_what_the_pod_did_last() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    world.pod(phase="Pending", last_event="FailedMount: volume data is attached to another node")
    world.later(61)
    world.step()
    assert world.status.failure is not None
    assert "60 s; FailedMount: volume data is attached to another node" in world.status.failure.message


def test_a_pod_that_the_node_refuses_is_counted_with_the_kubelets_message() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    job = world.child()
    world.pod(phase="Failed", reason="UnexpectedAdmissionError", message="no healthy GPU")
    world.jobs[job.name] = replace(job, failed=True)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "PodRejected"
    assert "no healthy GPU" in world.status.failure.message
    assert world.status.job_name == job.name


def test_a_container_that_has_ended_is_not_shown_as_waiting() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.run()
    world.step()
    job = world.child()
    world.finish("", exit_code=1)
    world.jobs[job.name] = job
    before = world.status
    world.step()
    assert world.status == before
    world.pods.clear()
    world.finish(succeeded())
    world.jobs[job.name] = job
    world.pods = {uid: replace(pod, phase="Running") for uid, pod in world.pods.items()}
    world.step()
    assert phase_of(world) is Phase.SUCCEEDED
    world.step()
    assert job.name in world.jobs


def test_what_a_pod_waits_for_is_shown_with_one_event() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    world.pod(waiting_reason="ImagePullBackOff", waiting_message="no such image")
    world.step()
    world.pod(waiting_reason="ErrImagePull", waiting_message="no such image")
    world.step()
    reconciling = world.status.condition(ConditionType.RECONCILING)
    assert reconciling is not None
    assert reconciling.reason == "ImagePullFailed"
    assert [event.reason for event in world.events].count("ImagePullFailed") == 1


def test_the_start_deadline_names_what_the_pod_waits_for() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    world.pod(unschedulable="0/1 nodes: Insufficient nvidia.com/gpu")
    world.step()
    assert world.requeue_after == 60
    world.later(60)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"
    assert "Insufficient nvidia.com/gpu" in world.status.failure.message
    assert world.jobs == {}


def test_the_deadline_ends_the_job_and_its_pods() -> None:
    world = World(a_job(preflight={"enabled": False}, activeDeadlineSeconds=100))
    world.step()
    world.run()
    world.step()
    assert world.requeue_after == 100
    world.later(100)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "DeadlineExceeded"
    assert world.jobs == {}


def test_a_silent_training_is_ended_and_tried_again() -> None:
    world = World(a_job(preflight={"enabled": False}, stallTimeoutSeconds=60, retry={"backoffSeconds": 0}))
    world.step()
    world.run()
    world.step()
    world.later(60)
    world.step()
    assert world.status.attempts[-1].reason == "TrainingStalled"
    world.step()
    assert world.made[-1] == "support-bot-train-2"


def test_a_success_that_names_no_adapter_is_none() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    world.finish("done")
    world.step()
    assert phase_of(world) is Phase.FAILED
    assert world.status.failure is not None
    assert world.status.failure.reason == "InternalError"


def test_a_success_whose_report_is_gone_is_asked_again() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 0, "backoffSeconds": 0}))
    world.step()
    world.finish(succeeded())
    world.pods.clear()
    world.step()
    assert world.status.attempts[-1].reason == "PodLost"
    world.step()
    assert world.made[-1] == "support-bot-train-2"


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"scheduling": {"serviceAccountName": "admin"}}, "serviceAccountName"),
        ({"model": {"uri": "hf://a/b", "trustRemoteCode": True}}, "trustRemoteCode"),
    ],
)
def test_what_the_administrator_forbids_is_refused_by_name(spec: dict[str, Any], word: str) -> None:
    world = World(a_job(**spec))
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "InvalidSpec"
    assert word in world.status.failure.message
    assert world.made == []


def test_what_the_administrator_allows_may_run() -> None:
    job = a_job(model={"uri": "hf://a/b", "trustRemoteCode": True})
    world = World(job, config=replace(CONFIG, allow_remote_code=True))
    world.step()
    assert world.status.failure is None
    assert world.made == ["support-bot-preflight-1"]


def test_a_gpu_without_kernels_is_refused_before_a_pod_is_made() -> None:
    world = World(a_job(scheduling={"nodeSelector": {"nvidia.com/gpu.product": "Tesla-V100-SXM2-16GB"}}))
    world.step()
    assert world.made == []
    assert world.status.failure is not None
    assert world.status.failure.reason == FailureReason.GPU_NOT_SUPPORTED
    assert (
        "spec.scheduling: the node label nvidia.com/gpu.product: Tesla-V100-SXM2-16GB" in world.status.failure.message
    )


def test_a_model_may_be_spread_over_the_gpus_of_its_pod() -> None:
    spec = {"model": {"uri": "hf://a/b", "deviceMap": "balanced"}, "resources": {"gpus": 4}}
    world = World(a_job(**spec, preflight={"enabled": False}))
    world.step()
    [container] = world.manifests["support-bot-train-1"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"


def test_another_controllers_job_is_left_alone() -> None:
    world = World(a_job(managedBy="kueue.x-k8s.io/multikueue"))
    plan = world.step()
    assert plan.apply == ()
    assert world.status_writes == 0


def test_only_the_last_two_attempts_keep_their_jobs() -> None:
    world = World(a_job(retry={"limit": 5, "backoffSeconds": 0}, preflight={"enabled": False}))
    for _ in range(4):
        world.step()
        world.finish("boom", exit_code=1)
        world.step()
    world.step()
    assert sorted(world.jobs) == ["support-bot-train-4", "support-bot-train-5"]


def test_a_job_that_the_operator_did_not_create_is_ignored() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    made = world.child()
    forged = replace(made, uid="forged")
    world.jobs = {"a-forged": forged, made.name: made}
    world.finish(succeeded())
    pod = next(iter(world.pods.values()))
    world.pods = {pod.uid: replace(pod, job_uid="forged")}
    world.jobs = {"a-forged": replace(forged, complete=True), made.name: made}
    world.step()
    assert world.status.phase == "Starting"
    assert world.status.output is None


def test_a_child_that_kubernetes_refuses_for_too_long_fails_the_job_with_the_refusal() -> None:
    world = World(a_job(preflight={"enabled": False}))
    started = world.plan().status
    refused = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.UNKNOWN,
        reason="ChildRefused",
        message="exceeded quota: gpus",
        last_transition_time=world.now,
    )
    status = started.model_copy(update={"job_name": None, "conditions": [refused]})
    world.job = replace(world.job, status=status)
    world.later(86_399)
    assert world.plan().apply, "tried again"
    world.later(1)
    world.step()
    assert world.made == []
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"
    assert "exceeded quota: gpus" in world.status.failure.message


def test_the_time_in_a_queue_does_not_count_for_the_start() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    job = world.child()
    world.jobs[job.name] = replace(job, suspended=True)
    world.later(100_000)
    world.step()
    assert world.status.phase == "Queued"


def test_a_child_that_leaves_a_queue_is_given_time_for_its_pods() -> None:
    world = World(a_job(preflight={"enabled": False}, startDeadlineSeconds=60))
    world.step()
    world.queue(suspend=True, suspended="True")
    world.later(100_000)
    world.step()
    world.queue(suspend=False, suspended="True")  # Kubernetes has not seen it yet
    world.step()
    assert _reconciling(world) == "ChildSuspended"
    world.queue(suspend=False, suspended="False")
    world.step()
    assert (world.status.phase, _reconciling(world)) == ("Starting", "WaitingForPod")
    assert world.requeue_after == NO_POD_AFTER.total_seconds()
    world.later(NO_POD_AFTER.total_seconds())
    world.step()
    assert _reconciling(world) == "PodNotCreated"
    world.later(60)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"


def _reconciling(world: World) -> str:
    found = world.status.condition("Reconciling")
    assert found is not None
    return found.reason


def test_a_child_that_somebody_else_suspends_is_shown_as_that() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    job = world.child()
    world.jobs[job.name] = replace(job, suspended=True)
    world.later(60)
    world.step()
    reconciling = world.status.condition("Reconciling")
    assert reconciling is not None
    assert reconciling.reason == "ChildSuspended"
    assert f"Job {job.name} is suspended" in reconciling.message
    world.jobs[job.name] = job
    world.run()
    world.step()
    assert world.status.phase == "Running"


def test_the_next_attempt_reaches_storage_as_the_job_says_by_then() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"backoffSeconds": 0}))
    world.step()
    world.finish("boom", exit_code=1)
    world.step()
    storage = {"secretRef": {"name": "right"}, "endpoint": "https://minio:9000"}
    sections = {"storage": storage, "checkpoint": {"uri": "s3://scratch/checkpoints"}}
    spec = a_job(preflight={"enabled": False}, retry={"backoffSeconds": 0}, **sections).spec
    world.job = replace(world.job, spec=spec)
    world.step()
    template = world.manifests["support-bot-train-2"]["spec"]["template"]
    recipe = json.loads(template["metadata"]["annotations"][names.RECIPE_ANNOTATION])
    assert recipe["storage"] | storage == recipe["storage"]
    assert recipe["checkpoint"]["uri"] == "s3://scratch/checkpoints"
    assert {"secretName": "right"}.items() <= next(
        volume["secret"].items() for volume in template["spec"]["volumes"] if volume["name"] == "storage-secret"
    )
