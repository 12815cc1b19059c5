"""The stages of a run: its beginning, the start of a child, and what is shown while it waits or runs."""

from dataclasses import replace

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus, PreflightStatus
from finetune_operator.reconcile.conditions import restamped, set_condition, show
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.ends import is_finished
from finetune_operator.reconcile.manifests import child_job, headless_service
from finetune_operator.reconcile.outcome import Running, Waiting
from finetune_operator.reconcile.plan import EventType
from finetune_trainer.contract.termination import Termination

_CHECKING = "checking storage, data and model before a GPU is asked for"


def begin_run(draft: Draft) -> None:
    """The first look at a job, or at a changed runToken of a finished one: a run begins.

    Attempts keep counting over runs, so that no child's name is used twice.
    """
    status, token = draft.status, draft.job.spec.run_token
    draft.update(observed_generation=draft.job.generation, conditions=restamped(status, draft.job.generation))
    if status.start_time is None:
        draft.update(start_time=draft.now, run_token=token)
        show(draft, Phase.PENDING, Reason.PENDING, "accepted")
    elif is_finished(draft) and token != status.run_token:
        draft.status = FineTuneJobStatus(
            observed_generation=draft.job.generation,
            start_time=draft.now,
            run_token=token,
            attempt=status.attempt,
            gpu_seconds=status.gpu_seconds,
            conditions=[item for item in draft.status.conditions if item.type != ConditionType.PREFLIGHT_PASSED],
        )
        draft.event(Reason.RESTARTED, f"runToken is now {token!r}: the job runs once more")
        show(draft, Phase.PENDING, Reason.RESTARTED, "runToken has changed: the job runs once more")


def start(draft: Draft, role: str, attempt: int) -> None:
    """Makes the child Job of a stage."""
    preflight = draft.status.preflight
    revision = preflight.model_revision if preflight is not None and role == names.TRAIN_ROLE else None
    # The run's own token: another one in the spec is the next run's.
    spec = draft.job.spec.model_copy(update={"run_token": draft.status.run_token})
    child = child_job(replace(draft.job, spec=spec), draft.config, role, attempt, revision)
    if role == names.TRAIN_ROLE and spec.resources.nodes > 1:
        draft.apply(headless_service(draft.job))
    draft.apply(child)
    name = child["metadata"]["name"]
    draft.update(job_name=name, job_uid=None, pod_name=None)  # the UID is known when the Job has been applied
    if role == names.PREFLIGHT_ROLE:
        draft.event(Reason.PREFLIGHT_STARTED, f"Job {name} checks storage, data and model")
        set_condition(
            draft, ConditionType.PREFLIGHT_PASSED, ConditionStatus.UNKNOWN, Reason.PREFLIGHT_RUNNING, _CHECKING
        )
    else:
        draft.event(Reason.ATTEMPT_STARTED, f"attempt {attempt}: Job {name} trains")
        if not draft.job.spec.preflight.enabled:
            set_condition(
                draft,
                ConditionType.PREFLIGHT_PASSED,
                ConditionStatus.UNKNOWN,
                Reason.PREFLIGHT_DISABLED,
                "spec.preflight.enabled is false",
            )
    show_waiting(draft, role, Waiting(reason="", message="", since=None))


def show_waiting(draft: Draft, role: str, waiting: Waiting) -> None:
    """What a user sees while the container does not run; why, when something is wrong."""
    phase = Phase.PREFLIGHT if role == names.PREFLIGHT_ROLE else Phase.STARTING
    if waiting.reason:
        before = draft.status.condition(ConditionType.RECONCILING)
        if before is not None and before.reason == waiting.reason:
            return  # the kubelet words the same trouble in turns (ErrImagePull, ImagePullBackOff): the first word stays
        draft.event(waiting.reason, waiting.message, EventType.WARNING)
        show(draft, phase, waiting.reason, waiting.message)
    elif role == names.PREFLIGHT_ROLE:
        show(draft, phase, Reason.PREFLIGHT_RUNNING, _CHECKING)
    else:
        show(draft, phase, Reason.WAITING, f"attempt {draft.status.attempt} waits for its pod to start")


def show_running(draft: Draft, role: str, running: Running) -> None:
    """What a user sees while the container runs."""
    if role == names.PREFLIGHT_ROLE:
        show(draft, Phase.PREFLIGHT, Reason.PREFLIGHT_RUNNING, _CHECKING)
        return
    draft.update(pod_name=running.pod.name)
    show(draft, Phase.RUNNING, Reason.TRAINING, f"attempt {draft.status.attempt} trains")


def pass_preflight(draft: Draft, termination: Termination) -> None:
    """Books what preflight found."""
    summary = termination.preflight
    draft.update(
        preflight=PreflightStatus.model_validate(summary.to_dict()) if summary is not None else None,
        fingerprint=termination.fingerprint,
    )
    message = "storage, data and model are fine"
    if summary is not None and summary.rows is not None:
        message += f": {summary.rows:,} rows"
    set_condition(draft, ConditionType.PREFLIGHT_PASSED, ConditionStatus.TRUE, Reason.PREFLIGHT_PASSED, message)
    draft.event(Reason.PREFLIGHT_PASSED, message)
