"""The stages of a run: its beginning, the start of a child, and the status while the child waits or runs."""

from dataclasses import replace

from finetune_operator.api import names
from finetune_operator.api.finetunejob import Held
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.reconcile import queue
from finetune_operator.reconcile.child_state import Running, Waiting
from finetune_operator.reconcile.completion import is_finished
from finetune_operator.reconcile.conditions import set_condition, set_phase, with_observed_generation
from finetune_operator.reconcile.manifests import child_job, headless_service
from finetune_operator.reconcile.observed import JobView
from finetune_operator.reconcile.plan import EventType
from finetune_operator.reconcile.plan_builder import PlanBuilder, RunPlanBuilder
from finetune_trainer.contract.termination import Termination

_CHECKING = "checking storage, data and model before a GPU is requested"


def begin_run(builder: RunPlanBuilder) -> None:
    """Begins a run: at the first reconcile, or when the runToken of a finished job has changed.

    Attempt numbers go on over runs, so no child's name is used twice.
    """
    status, token = builder.status, builder.run_token
    builder.update(
        observed_generation=builder.generation, conditions=with_observed_generation(status, builder.generation)
    )
    if status.start_time is None and not is_finished(builder):
        builder.update(start_time=builder.now, run_token=token, profile=builder.profile)
        set_phase(builder, Phase.PENDING, Reason.PENDING, "accepted")
    elif is_finished(builder) and token != status.run_token:
        _renew(builder)
        builder.update(start_time=builder.now, profile=builder.profile)
        set_phase(builder, Phase.PENDING, Reason.RESTARTED, "runToken has changed: the job runs again")


def hold_run(builder: RunPlanBuilder, held: Held) -> None:
    """Shows why a run cannot begin. Its time begins when it does, so that no deadline counts the wait."""
    status = builder.status
    builder.update(
        observed_generation=builder.generation, conditions=with_observed_generation(status, builder.generation)
    )
    if is_finished(builder):
        _renew(builder)
    before = builder.status.condition(ConditionType.RECONCILING)
    if before is None or (before.reason, before.message) != (held.reason, held.message):
        builder.event(held.reason, held.message, EventType.WARNING)
    builder.update(run_token=builder.run_token)
    set_phase(builder, Phase.PENDING, held.reason, held.message)


def _renew(builder: RunPlanBuilder) -> None:
    """The status of a run that follows another one."""
    status, token = builder.status, builder.run_token
    builder.status = FineTuneJobStatus(
        observed_generation=builder.generation,
        run_token=token,
        attempt=status.attempt,
        gpu_seconds=status.gpu_seconds,
        cost=status.cost,
        conditions=[item for item in status.conditions if item.type != ConditionType.PREFLIGHT_PASSED],
    )
    builder.event(Reason.RESTARTED, f"runToken is now {token!r}: the job runs again")


def start(builder: PlanBuilder, role: str, attempt: int) -> None:
    """Applies the child Job of a stage."""
    checked = builder.status.preflight if role == names.TRAIN_ROLE else None
    # The run's own token: another token in the spec belongs to the next run.
    spec = builder.finetunejob.spec.model_copy(update={"run_token": builder.status.run_token})
    child = child_job(replace(builder.finetunejob, spec=spec), builder.config, role, attempt, checked)
    if role == names.TRAIN_ROLE and spec.resources.nodes > 1:
        builder.apply(headless_service(builder.finetunejob))
    builder.apply(child)
    name = child["metadata"]["name"]
    builder.update(job_name=name, job_uid=None, pod_name=None)  # the UID is known when the Job has been applied
    if role == names.PREFLIGHT_ROLE:
        builder.event(Reason.PREFLIGHT_STARTED, f"Job {name} checks storage, data and model")
        set_condition(
            builder, ConditionType.PREFLIGHT_PASSED, ConditionStatus.UNKNOWN, Reason.PREFLIGHT_RUNNING, _CHECKING
        )
    else:
        builder.event(Reason.ATTEMPT_STARTED, f"attempt {attempt}: Job {name} trains")
        if not builder.finetunejob.spec.preflight.enabled:
            set_condition(
                builder,
                ConditionType.PREFLIGHT_PASSED,
                ConditionStatus.UNKNOWN,
                Reason.PREFLIGHT_DISABLED,
                "spec.preflight.enabled is false",
            )
    show_waiting(builder, role, Waiting(reason="", message="", since=None))


def show_waiting(builder: PlanBuilder, role: str, waiting: Waiting, job: JobView | None = None) -> None:
    """Sets the status while the container waits, with the reason if something is wrong. `job` is its Job, if known."""
    if job is not None and not waiting.reason and (message := queue.ignored(job)) is not None:
        waiting = replace(waiting, reason=Reason.QUEUE_IGNORED, message=message)
    phase = Phase.PREFLIGHT if role == names.PREFLIGHT_ROLE else Phase.STARTING
    if waiting.reason:
        before = builder.status.condition(ConditionType.RECONCILING)
        if before is not None and before.reason == waiting.reason:
            return  # the kubelet alternates between two words for one error (ErrImagePull, ImagePullBackOff)
        builder.event(waiting.reason, waiting.message, EventType.WARNING)
        set_phase(builder, phase, waiting.reason, waiting.message)
    elif role == names.PREFLIGHT_ROLE:
        set_phase(builder, phase, Reason.PREFLIGHT_RUNNING, _CHECKING)
    else:
        admission = job.workload.admission if job is not None and job.workload is not None else ""
        place = f"; Kueue admitted it to {admission}" if admission else ""
        message = f"attempt {builder.status.attempt} waits for its pod to start{place}"
        set_phase(builder, phase, Reason.WAITING, message)


def show_running(builder: PlanBuilder, role: str, running: Running) -> None:
    """Sets the status while the container runs."""
    if role == names.PREFLIGHT_ROLE:
        set_phase(builder, Phase.PREFLIGHT, Reason.PREFLIGHT_RUNNING, _CHECKING)
        return
    builder.update(pod_name=running.pod.name)
    set_phase(builder, Phase.RUNNING, Reason.TRAINING, f"attempt {builder.status.attempt} trains")


def pass_preflight(builder: PlanBuilder, termination: Termination) -> None:
    """Records the results of preflight."""
    summary = termination.preflight
    builder.update(
        preflight=summary,
        fingerprint=termination.fingerprint,
    )
    message = "storage, data and model are fine"
    if summary is not None and summary.rows is not None:
        message += f": {summary.rows:,} rows"
    set_condition(builder, ConditionType.PREFLIGHT_PASSED, ConditionStatus.TRUE, Reason.PREFLIGHT_PASSED, message)
    builder.event(Reason.PREFLIGHT_PASSED, message)
