"""Phases, condition types and reasons. They are part of the API: users' scripts and alerts match them."""

from enum import StrEnum


class Phase(StrEnum):
    """For display. Programs should read the conditions."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    QUEUED = "Queued"
    """Kueue has not admitted the child Job yet, or no longer."""
    STARTING = "Starting"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


ENDED = (Phase.SUCCEEDED, Phase.FAILED)
"""Phases of a run that has ended."""


class ConditionType(StrEnum):
    """Condition types; meanings follow the API conventions and kstatus."""

    SUCCEEDED = "Succeeded"
    """True or False at the end, Unknown before."""
    READY = "Ready"
    """Mirrors Succeeded, for kstatus and dashboards."""
    RECONCILING = "Reconciling"
    """True while the run is in progress; otherwise absent."""
    STALLED = "Stalled"
    """True if only a user's change can help; otherwise absent."""
    FINISHED = "Finished"
    """True at either end, so that one `kubectl wait` is enough."""
    SUSPENDED = "Suspended"
    PREFLIGHT_PASSED = "PreflightPassed"


class Reason(StrEnum):
    """Reasons of conditions and events, beside those of contract.failure."""

    PENDING = "Pending"
    PREFLIGHT_STARTED = "PreflightStarted"
    PREFLIGHT_RUNNING = "PreflightRunning"
    PREFLIGHT_PASSED = "PreflightPassed"
    PREFLIGHT_FAILED = "PreflightFailed"
    PREFLIGHT_DISABLED = "PreflightDisabled"
    ATTEMPT_STARTED = "AttemptStarted"
    TRAINING = "Training"
    WAITING = "WaitingForPod"
    NO_POD = "PodNotCreated"
    CHILD_SUSPENDED = "ChildSuspended"
    """Another controller or a user suspended the child Job. Kueue's reasons are those that begin with Queue."""
    QUEUE_PENDING = "QueuePending"
    """The child Job waits for quota."""
    QUEUE_INADMISSIBLE = "QueueInadmissible"
    """Kueue cannot admit the child Job: there is no such queue, or it is stopped."""
    QUEUE_PREEMPTED = "QueuePreempted"
    """Kueue stopped the child Job for another one. It goes on at its last checkpoint when there is quota."""
    QUEUE_EVICTED = "QueueEvicted"
    """Kueue stopped the child Job for another reason, such as a stopped queue."""
    QUEUE_DEACTIVATED = "QueueDeactivated"
    """The child Job's Workload was set inactive."""
    QUEUE_ADMITTED = "QueueAdmitted"
    QUEUE_IGNORED = "QueueIgnored"
    """The child Job names a queue, and no Kueue manages it."""
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    SUCCEEDED = "TrainingSucceeded"
    OUTPUT_EXISTS = "OutputAlreadyExists"
    RESTARTED = "RunTokenChanged"
    PROFILE_NOT_FOUND = "ProfileNotFound"
    """The profile that spec.profileRef names does not exist. The job begins when it does."""
    PROFILE_INVALID = "ProfileInvalid"
    """A profile of the job cannot be used. The job begins when it is corrected."""
    CHILD_REFUSED = "ChildRefused"
    """The API server refuses a child: a quota, an admission policy, or missing rights."""
    OPERATOR_OUTDATED = "OperatorOutdated"
    """The spec has fields that this operator does not know: the CRD is newer."""
