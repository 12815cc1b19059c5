"""Views: small typed copies of the fields of Jobs and pods that the policy reads.

The cache keeps views, so a pod of several kilobytes takes a few hundred bytes. Nothing here decides. Text for people is
made readable here: it may quote what a container wrote, and goes to the status, events and the log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_operator.api import names
from finetune_operator.api.kueue import QUEUE_LABEL
from finetune_operator.reconcile.workload import WorkloadView
from finetune_trainer.contract.text import readable


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A child batch/v1 Job.

    Attributes:
        suspended: whether somebody has suspended it, or Kubernetes has not resumed it yet.
        resumed: when Kubernetes resumed it last; None if it was never suspended.
        queue: the Kueue queue that its label names; empty if it has none.
        size: its parallelism, the number of pods.
        refusal: why Kubernetes does not create its pods, in the words of the Job's newest event. It is read only while
            pods are missing; otherwise empty.
        workload: what Kueue says of it. It is read only while the Job is suspended, or has a queue and waits for pods.
        unmanaged: whether Kueue was asked for its Workload, and there is none.
    """

    namespace: str
    name: str
    uid: str
    owner_uid: str
    role: str
    attempt: int
    created: datetime
    complete: bool
    failed: bool
    failure_reason: str
    failure_message: str
    suspended: bool
    deleting: bool
    resumed: datetime | None = None
    queue: str = ""
    size: int = 1
    refusal: str = ""
    workload: WorkloadView | None = None
    unmanaged: bool = False

    @property
    def due(self) -> datetime:
        """When Kubernetes could first create its pods: what it waited suspended, in a queue, is not its delay."""
        return self.resumed or self.created


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """The terminated state of the pod's own container.

    Attributes:
        message: the termination message, or the end of the log, as the container wrote it.
    """

    exit_code: int
    reason: str
    message: str
    started: datetime | None
    finished: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """A pod of a child Job.

    Attributes:
        waiting_reason, waiting_message: why the container does not start, or the init container that it waits for.
        init_failure: how an init container failed, so that ours never started; otherwise empty. Ours have none, so
            somebody has injected it.
        unschedulable: the scheduler's message while no node fits; otherwise empty.
        disruption: reason of a DisruptionTarget condition (eviction, preemption, taint); otherwise empty.
        index: completion index of a pod of an Indexed Job; None for other pods.
        terminated: how its own container ended; None until it has.
        sidecar_remains: whether an injected container has not ended: it runs, or has never started.
        last_event: what happened to it last, by its events. It is read only when the pod has waited for too long and
            its status does not say why; otherwise empty.
        deletion_time: end of the grace period of a deleted pod; None if it is not deleted.
    """

    namespace: str
    name: str
    uid: str
    job_name: str
    job_uid: str
    owner_uid: str
    role: str
    attempt: int
    phase: str
    reason: str
    message: str
    created: datetime
    running_since: datetime | None
    waiting_reason: str
    waiting_message: str
    unschedulable: str
    disruption: str
    terminated: Terminated | None
    deletion_time: datetime | None
    index: int | None = None
    sidecar_remains: bool = False
    init_failure: str = ""
    last_event: str = ""

    @property
    def kept_by_sidecar(self) -> bool:
        """Whether its own container has ended, and an injected sidecar that may never end keeps the pod from ending.

        Then the Job does not end. A pod that is being disrupted ends anyway, and its Job replaces it.
        """
        ends_anyway = bool(self.disruption) or self.deletion_time is not None or self.phase in ("Succeeded", "Failed")
        return self.terminated is not None and self.sidecar_remains and not ends_anyway

    @property
    def is_first_pod(self) -> bool:
        """Whether it is the only pod or the one with index 0, which reports and commits the adapter."""
        return self.index in (None, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All children that one FineTuneJob owns, in its namespace."""

    jobs: tuple[JobView, ...] = ()
    pods: tuple[PodView, ...] = ()

    def job(self, uid: str | None) -> JobView | None:
        """The child Job with that UID."""
        return next((job for job in self.jobs if job.uid == uid), None)

    def pods_of(self, job: JobView) -> tuple[PodView, ...]:
        """The pods that a Job controls, oldest first."""
        return tuple(sorted((pod for pod in self.pods if pod.job_uid == job.uid), key=lambda pod: pod.created))


def refusal_in(event: Mapping[str, Any]) -> str:
    """The reason in an event of a Job whose pod was not created. The pod's name is left out: each try has a new one."""
    note = _text(event, "note")
    return note.partition(" is forbidden: ")[2] or note


def last_event(events: Iterable[Mapping[str, Any]]) -> str:
    """Reason and text of a pod's newest warning, or of its newest event if there is no warning; empty without any."""
    newest = max(events, key=lambda event: (event.get("type") == "Warning", event_time(event)), default=None)
    return f"{_text(newest, 'reason')}: {_text(newest, 'note')}" if newest is not None else ""


def event_time(event: Mapping[str, Any]) -> str:
    """When an event happened last, for comparing. Components write it into different fields."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return next((time for time in times if time), "")


def job_view(raw: Mapping[str, Any]) -> JobView | None:
    """The view of a Job; None if the operator did not create it."""
    metadata = raw["metadata"]
    identity = _identity(metadata.get("labels") or {})
    if identity is None:
        return None
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    failed = _true_condition(status, "Failed")
    suspended = _condition(status, "Suspended")
    waits = suspended is not None and suspended.get("status") == "True"
    owner = _controller(metadata)
    return JobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=owner.get("uid", ""),
        role=identity[0],
        attempt=identity[1],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        complete=_true_condition(status, "Complete") is not None,
        failed=failed is not None,
        failure_reason=_text(failed, "reason"),
        failure_message=_text(failed, "message"),
        suspended=bool(spec.get("suspend")) or waits,
        resumed=None if suspended is None or waits else _time(suspended.get("lastTransitionTime")),
        deleting="deletionTimestamp" in metadata,
        queue=readable((metadata.get("labels") or {}).get(QUEUE_LABEL, "")),
        size=spec.get("parallelism", 1),
    )


def pod_view(raw: Mapping[str, Any]) -> PodView | None:
    """The view of a pod; None if it does not belong to a child Job."""
    metadata = raw["metadata"]
    labels = metadata.get("labels") or {}
    identity = _identity(labels)
    if identity is None:
        return None
    status = raw.get("status") or {}
    owner = _controller(metadata)
    states = {item["name"]: item.get("state") or {} for item in status.get("containerStatuses") or ()}
    state = states.pop(names.CONTAINERS.get(identity[0], ""), {})
    waiting = state.get("waiting") or {}
    init_name, init_state = _init_container_in_the_way(status)
    init_waiting = init_state.get("waiting") or {}
    init_message = f"init container {init_name}: {_text(init_waiting, 'message')}" if init_waiting else ""
    scheduled = _condition(status, "PodScheduled") or {}
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        job_name=owner.get("name", ""),
        job_uid=owner.get("uid", ""),
        owner_uid=labels.get(names.FINETUNEJOB_UID_LABEL, ""),
        role=identity[0],
        attempt=identity[1],
        phase=status.get("phase", "Pending"),
        reason=_text(status, "reason"),
        message=_text(status, "message"),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        running_since=_time((state.get("running") or {}).get("startedAt")),
        waiting_reason=_text(init_waiting or waiting, "reason"),
        waiting_message=init_message or _text(waiting, "message"),
        init_failure=_init_failure(init_name, init_state),
        unschedulable=_text(scheduled, "message") if scheduled.get("status") == "False" else "",
        disruption=_text(_true_condition(status, "DisruptionTarget"), "reason"),
        terminated=_terminated(state.get("terminated")),
        sidecar_remains=any("terminated" not in other for other in states.values()),
        deletion_time=_time(metadata.get("deletionTimestamp")),
        index=int(index) if (index := labels.get(names.INDEX_LABEL, "")).isdecimal() else None,
    )


def _init_container_in_the_way(status: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and state of the init container that the others wait for; empty if they wait for none."""
    for item in status.get("initContainerStatuses") or ():
        state = item.get("state") or {}
        native_sidecar = "running" in state and item.get("started")
        if not native_sidecar and (state.get("terminated") or {}).get("exitCode") != 0:
            return item["name"], state
    return "", {}


def _init_failure(name: str, state: Mapping[str, Any]) -> str:
    terminated = state.get("terminated")
    if terminated is None:
        return ""
    said = (_text(terminated, "message") or _text(terminated, "reason")).strip()
    return f"{name} ended with exit code {terminated['exitCode']}: {said}".rstrip(": ")


def _identity(labels: Mapping[str, str]) -> tuple[str, int] | None:
    role, attempt = labels.get(names.ROLE_LABEL), labels.get(names.ATTEMPT_LABEL, "")
    if role is None or not attempt.isdecimal():
        return None
    return role, int(attempt)


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    owners: list[Mapping[str, Any]] = metadata.get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    conditions: list[Mapping[str, Any]] = status.get("conditions") or []
    return next((item for item in conditions if item.get("type") == type_), None)


def _true_condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    condition = _condition(status, type_)
    return condition if condition is not None and condition.get("status") == "True" else None


def _text(part: Mapping[str, Any] | None, field: str) -> str:
    """A text for people, without control characters; empty if it is missing."""
    return readable((part or {}).get(field) or "")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _terminated(state: Mapping[str, Any] | None) -> Terminated | None:
    if state is None:
        return None
    return Terminated(
        exit_code=state.get("exitCode", 0),
        reason=_text(state, "reason"),
        message=state.get("message", ""),
        started=_time(state.get("startedAt")),
        finished=_time(state.get("finishedAt")),
    )
