"""The state of one child Job and its pods: waiting, running, succeeded, or failed with a reason.

Success is read from the pod, which has it first. Failure is read from the Job, because the Job replaces a disrupted pod
(podFailurePolicy). The reason is then read from the pod's termination message, exit code and status.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_operator.api.reasons import Reason
from finetune_operator.reconcile.observed import JobView, PodView
from finetune_trainer.contract.failure import BY_EXIT_CODE, FailureReason
from finetune_trainer.contract.last_words import last_words
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.contract.text import readable

LOST_AFTER = timedelta(seconds=30)
"""How long after its grace period a deleted pod may still exist before its node counts as unreachable."""

NO_POD_AFTER = timedelta(seconds=30)
"""How long a Job may lack a pod before `PodNotCreated` is reported, if startDeadlineSeconds is not shorter."""

_SIGNAL_BASE = 128
_WITHOUT_A_REPORT = (1, _SIGNAL_BASE + 6)
"""Exit codes of a container that a library ended: exit(1), and abort() with its signal 6."""
_IMAGE_REASONS = {
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
}
_QUIET_WAITING = {"", "ContainerCreating", "PodInitializing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """No container runs yet.

    Attributes:
        reason: one CamelCase word; empty if nothing is wrong.
        message: text for people. Without a reason it says what the pod has done last, if that is known.
    """

    reason: str
    message: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """Another controller, such as Kueue, has suspended the Job, and it has no pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The container runs."""

    pod: PodView
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The container exited with code 0.

    Attributes:
        termination: its termination message; None if there is none, or if it cannot be read.
        pod_gone: whether the message is missing because the pod was deleted.
    """

    termination: Termination | None
    pod_gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt has failed."""

    reason: FailureReason
    message: str
    exit_code: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitingJob:
    """The container has failed, and the Job controller has not decided yet whether to replace the pod."""


ChildState = Waiting | Suspended | Running | AwaitingJob | Succeeded | Failed


def child_state(
    job: JobView, pods: tuple[PodView, ...], now: datetime, no_pod_after: timedelta = NO_POD_AFTER
) -> ChildState:
    """The state of one child Job and its pods, oldest first.

    Args:
        job: the Job.
        pods: its pods.
        now: the current time.
        no_pod_after: how long it may lack a pod before that is a reason.
    """
    for pod in reversed(pods):
        if pod.is_first_pod and pod.terminated is not None and pod.terminated.exit_code == 0:
            return Succeeded(termination=Termination.read(pod.terminated.message))
    if job.complete:
        return Succeeded(termination=None, pod_gone=True)
    if job.failed or kept_by_sidecars(job, pods):
        return _failed(job, pods)
    for pod in pods:
        if pod.reason == "Evicted" and "ephemeral" in pod.message:
            # The Job would replace the pod after this disruption, and the new pod would fill the same disk again.
            return Failed(reason=FailureReason.DISK_FULL, message=pod.message)
    live = [pod for pod in pods if pod.terminated is None and pod.phase != "Failed"]
    if not live and job.suspended:
        return Suspended()
    if not live:
        return AwaitingJob() if pods else _without_pods(job, 0, now, no_pod_after)
    newest = _newest(live)
    for pod in newest:
        if pod.deletion_time is not None and now > pod.deletion_time + LOST_AFTER:
            return Failed(
                reason=FailureReason.POD_LOST,
                message=f"pod {pod.name} was deleted ({pod.disruption or 'no reason given'}) and its node does not "
                "answer",
            )
    waiting = [_waiting(pod) for pod in newest if pod.running_since is None]
    if waiting:
        return next((one for one in waiting if one.reason), waiting[0])
    if _created(pods) < job.size:
        return _without_pods(job, _created(pods), now, no_pod_after)
    since = max(pod.running_since for pod in newest if pod.running_since is not None)
    return Running(pod=newest[0], since=since)


def kept_by_sidecars(job: JobView, pods: tuple[PodView, ...]) -> bool:
    """Whether every pod's own container has ended, and only injected sidecars keep the Job from ending."""
    newest = _newest(list(pods))
    ended = len(newest) == job.size and all(pod.terminated is not None for pod in newest)
    return ended and any(pod.kept_by_sidecar for pod in newest)


def _newest(pods: list[PodView]) -> list[PodView]:
    """The newest pod of each completion index, in their order: a Job may have replaced a disrupted pod."""
    by_index = {pod.index or 0: pod for pod in pods}
    return [by_index[index] for index in sorted(by_index)]


def lost_deadline(pods: tuple[PodView, ...]) -> datetime | None:
    """When a pod that is being deleted counts as lost; None if no pod is being deleted."""
    times = [pod.deletion_time + LOST_AFTER for pod in pods if pod.deletion_time is not None and not pod.terminated]
    return min(times, default=None)


def missing_deadline(job: JobView, pods: tuple[PodView, ...], no_pod_after: timedelta) -> datetime | None:
    """When missing pods are reported as `PodNotCreated`; None if all have been created."""
    return job.due + no_pod_after if _created(pods) < job.size else None


def lacks_pods(job: JobView, pods: tuple[PodView, ...], now: datetime, no_pod_after: timedelta) -> bool:
    """Whether the Job has lacked pods for so long that it is reported."""
    deadline = missing_deadline(job, pods, no_pod_after)
    ended = job.complete or job.failed or job.deleting or job.suspended
    return deadline is not None and now >= deadline and not ended


def asks_queue(job: JobView, pods: tuple[PodView, ...], *, queued: bool) -> bool:
    """Whether a queue may say why the pods do not run yet, or where they may. `queued`: the status says Queued."""
    ended = job.complete or job.failed or job.deleting
    runs = any(pod.running_since is not None and pod.terminated is None for pod in pods)
    return not ended and (queued or not runs) and (job.suspended or bool(job.queue))


def waits_unexplained(pod: PodView, now: datetime, start_deadline: timedelta) -> bool:
    """Whether a pod has waited for longer than it may, and its status gives no reason."""
    waits = pod.terminated is None and pod.running_since is None and pod.phase == "Pending"
    return waits and now >= pod.created + start_deadline and not _waiting(pod).reason


def _created(pods: tuple[PodView, ...]) -> int:
    """How many pods have been created, without replacements."""
    return len({pod.index for pod in pods})


def _without_pods(job: JobView, created: int, now: datetime, no_pod_after: timedelta) -> Waiting:
    if now < job.due + no_pod_after:
        return Waiting(reason="", message="", since=job.due)
    number = f"only {created} of {job.size} pods" if created else "no pod"
    cause = (
        f": {job.refusal}"
        if job.refusal
        else (
            ", perhaps because of a quota, a missing ServiceAccount or PriorityClass, or an admission policy: "
            f"kubectl describe job {job.name}"
        )
    )
    return Waiting(
        reason=Reason.NO_POD,
        message=f"Kubernetes has created {number} for Job {job.name}{cause}",
        since=job.due,
    )


def _waiting(pod: PodView) -> Waiting:
    if pod.waiting_reason in _IMAGE_REASONS:
        text = f"{pod.waiting_reason}: {pod.waiting_message}"
        return Waiting(reason=FailureReason.IMAGE_PULL, message=text, since=pod.created)
    if pod.unschedulable:
        return Waiting(reason=FailureReason.UNSCHEDULABLE, message=pod.unschedulable, since=pod.created)
    if pod.waiting_reason not in _QUIET_WAITING:
        return Waiting(reason=pod.waiting_reason, message=pod.waiting_message, since=pod.created)
    return Waiting(reason="", message=pod.last_event, since=pod.created)


def _failed(job: JobView, pods: tuple[PodView, ...]) -> Failed:
    ended = [pod for pod in pods if pod.terminated is not None]
    rejected = [pod for pod in pods if pod.terminated is None and pod.phase == "Failed"]
    if rejected and (not ended or job.size > 1):
        return Failed(reason=FailureReason.POD_REJECTED, message=_rejection(rejected[-1]))
    if not ended:
        return Failed(
            reason=FailureReason.POD_LOST,
            message=f"the pod is gone; its Job reports {job.failure_reason}: {job.failure_message}",
        )
    if job.size == 1:
        return classify(ended[-1])
    return _root_cause(ended, [pod for pod in pods if pod.terminated is None])


def _rejection(pod: PodView) -> str:
    """Why a pod has failed whose own container never ran."""
    if pod.init_failure:
        return f"an injected init container failed in pod {pod.name}: {pod.init_failure}"
    detail = f"{pod.reason}: {pod.message}".strip(": ")
    return f"the node refused the pod: {detail}" if detail else f"the node refused pod {pod.name} and gave no reason"


def _root_cause(ended: list[PodView], gone: list[PodView]) -> Failed:
    """Why the first of several pods failed. The others lose their peer, or are terminated because the Job has failed.

    Finish times are whole seconds and do not give the order. So a pod's own failure counts before any PeerFailed.
    """
    failed = sorted((pod for pod in ended if _exit_code(pod) != 0), key=_finished)
    failures = [(pod, classify(pod)) for pod in failed or ended]
    for pod, failure in failures:
        if failure.reason is FailureReason.PREEMPTED and not pod.disruption:
            continue
        if failure.reason is not FailureReason.PEER_FAILED:
            return failure
    for pod in gone:
        if pod.disruption:
            # Its node does not answer, so there may never be a termination message.
            return Failed(reason=FailureReason.POD_LOST, message=f"pod {pod.name} was disrupted: {pod.disruption}")
    preempted = [failure for _, failure in failures if failure.reason is FailureReason.PREEMPTED]
    return preempted[0] if preempted else failures[0][1]


def _exit_code(pod: PodView) -> int:
    return pod.terminated.exit_code if pod.terminated is not None else 0


def _finished(pod: PodView) -> datetime:
    return pod.terminated.finished or pod.created if pod.terminated is not None else pod.created


def classify(pod: PodView) -> Failed:
    """Why a pod's container failed: its termination message, the kubelet's reason, the end of the log, or the code."""
    terminated = pod.terminated
    assert terminated is not None
    code = terminated.exit_code
    termination = Termination.read(terminated.message)
    if termination is not None and termination.outcome is Outcome.FAILED and termination.reason is not None:
        return Failed(
            reason=termination.reason,
            message=termination.message,
            exit_code=code,
            fingerprint=termination.fingerprint,
        )
    if terminated.reason == "OOMKilled":
        return Failed(
            reason=FailureReason.HOST_OUT_OF_MEMORY,
            message="the kernel killed the container at its memory limit",
            exit_code=code,
        )
    if pod.disruption:
        return Failed(reason=FailureReason.POD_LOST, message=f"disrupted: {pod.disruption}", exit_code=code)
    if code in _WITHOUT_A_REPORT and (words := last_words(terminated.message)) is not None:
        return Failed(
            reason=words[0], message=f"the container ended with exit code {code}: {readable(words[1])}", exit_code=code
        )
    reason = BY_EXIT_CODE.get(code)
    tail = f": {readable(terminated.message.strip())}" if terminated.message.strip() else ""
    if reason is not None:
        return Failed(reason=reason, message=f"the container ended with exit code {code}{tail}", exit_code=code)
    if code > _SIGNAL_BASE:
        signal = code - _SIGNAL_BASE
        return Failed(
            reason=FailureReason.KILLED, message=f"the container was killed by signal {signal}{tail}", exit_code=code
        )
    return Failed(
        reason=FailureReason.INTERNAL, message=f"the container ended with exit code {code}{tail}", exit_code=code
    )
