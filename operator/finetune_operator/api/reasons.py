"""Phases, condition types and reasons. The strings are API: users' scripts and alerts match them."""

from enum import StrEnum


class Phase(StrEnum):
    """For display; conditions are what programs should read."""

    PENDING = "Pending"
    PREFLIGHT = "Preflight"
    STARTING = "Starting"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Condition types; meanings follow the API conventions and kstatus."""

    SUCCEEDED = "Succeeded"
    """True or False at the end, Unknown before: the summary of bounded work."""
    READY = "Ready"
    """Mirrors Succeeded, for kstatus and dashboards."""
    RECONCILING = "Reconciling"
    """True while work goes on, absent after."""
    STALLED = "Stalled"
    """True when only a user's change can help; absent otherwise."""
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
    """Somebody else suspended the child Job, as a queue does."""
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    SUCCEEDED = "TrainingSucceeded"
    OUTPUT_EXISTS = "OutputAlreadyExists"
    RESTARTED = "RunTokenChanged"
    CHILD_REFUSED = "ChildRefused"
    """The API server refuses a child: quota, an admission policy, rights."""
