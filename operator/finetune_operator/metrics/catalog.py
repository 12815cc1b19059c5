"""Every metric of the operator: name, labels and meaning. Instruments, collectors and documentation are made of it.

Names follow Prometheus' conventions. Those that client-go's operators have too are named as there (`workqueue_*`,
`rest_client_*`, `leader_election_master_status`), so that dashboards for them work.
"""

from dataclasses import dataclass
from enum import StrEnum

NAMESPACE, PHASE, REASON, RESOURCE, NAME = "namespace", "phase", "reason", "resource", "name"

SECONDS_OF_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SECONDS_OF_PHASE = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0)


class Kind(StrEnum):
    """Types of metrics."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Group(StrEnum):
    """Who has a metric, as a heading of the documentation."""

    JOBS = "Jobs that exist"
    JOB = "One unfinished job"
    ENDED = "What has happened to jobs"
    OPERATOR = "The operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: its name; a counter's ends in `_total`.
        kind: its type.
        labels: the names of its labels.
        help: what it is, with its unit.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    group: Group
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(group: Group, name: str, help_: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, group=group, help=help_, labels=labels)


def _counter(group: Group, name: str, help_: str, *labels: str) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, group=group, help=help_, labels=labels)


def _histogram(group: Group, name: str, help_: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, group=group, help=help_, labels=labels, buckets=buckets)


_G = Group.JOBS
JOBS = _gauge(_G, "finetune_jobs", "FineTuneJobs by phase.", NAMESPACE, PHASE)
FAILED_JOBS = _gauge(_G, "finetune_failed_jobs", "Failed FineTuneJobs by the reason.", NAMESPACE, REASON)
OLDEST_PHASE_START = _gauge(
    _G,
    "finetune_oldest_phase_start_timestamp_seconds",
    "When the job that is longest in an unfinished phase entered it.",
    NAMESPACE,
    PHASE,
)
OLDEST_HEARTBEAT = _gauge(
    _G,
    "finetune_oldest_heartbeat_timestamp_seconds",
    "Of the running trainings, the oldest last report; the start of the training where none has come.",
    NAMESPACE,
)
OLDEST_CHECKPOINT = _gauge(
    _G,
    "finetune_oldest_checkpoint_timestamp_seconds",
    "Of the running trainings, the oldest newest checkpoint; the start of the training where there is none.",
    NAMESPACE,
)
CHECKPOINT_LAG = _gauge(
    _G,
    "finetune_checkpoint_lag_steps",
    "Most optimizer steps that one running training would lose with its pod.",
    NAMESPACE,
)
GPUS = _gauge(_G, "finetune_gpus", "GPUs of attempts that wait for a pod or train.", NAMESPACE, RESOURCE, PHASE)
TOKENS_PER_SECOND = _gauge(
    _G, "finetune_tokens_per_second", "Tokens per second of all running trainings together.", NAMESPACE
)
STEPS_PER_SECOND = _gauge(
    _G, "finetune_steps_per_second", "Optimizer steps per second of all running trainings together.", NAMESPACE
)
JOB_SERIES_OMITTED = _gauge(
    _G, "finetune_job_series_omitted", "Unfinished jobs without series of their own, because there are too many."
)

_G = Group.JOB
JOB_INFO = _gauge(_G, "finetune_job_info", "Always 1; the job's phase.", NAMESPACE, NAME, PHASE)
JOB_ATTEMPT = _gauge(_G, "finetune_job_attempt", "Number of the current attempt.", NAMESPACE, NAME)
JOB_PHASE_START = _gauge(
    _G, "finetune_job_phase_start_timestamp_seconds", "When the job entered its phase.", NAMESPACE, NAME
)
JOB_HEARTBEAT = _gauge(_G, "finetune_job_heartbeat_timestamp_seconds", "When the pod last reported.", NAMESPACE, NAME)
JOB_STEP = _gauge(_G, "finetune_job_step", "Optimizer steps done.", NAMESPACE, NAME)
JOB_STEPS = _gauge(_G, "finetune_job_steps", "Optimizer steps in all.", NAMESPACE, NAME)
JOB_EPOCH = _gauge(_G, "finetune_job_epoch", "Passes over the data that are done.", NAMESPACE, NAME)
JOB_LOSS = _gauge(_G, "finetune_job_loss", "Training loss, nats per token.", NAMESPACE, NAME)
JOB_EVAL_LOSS = _gauge(_G, "finetune_job_eval_loss", "Validation loss, nats per token.", NAMESPACE, NAME)
JOB_LEARNING_RATE = _gauge(_G, "finetune_job_learning_rate", "Learning rate of the last step.", NAMESPACE, NAME)
JOB_TOKENS_PER_SECOND = _gauge(
    _G, "finetune_job_tokens_per_second", "Tokens per second of the recent steps.", NAMESPACE, NAME
)
JOB_STEPS_PER_SECOND = _gauge(
    _G, "finetune_job_steps_per_second", "Optimizer steps per second of the recent steps.", NAMESPACE, NAME
)
JOB_CHECKPOINT_STEP = _gauge(
    _G, "finetune_job_checkpoint_step", "Step of the newest checkpoint in storage.", NAMESPACE, NAME
)
JOB_CHECKPOINT = _gauge(
    _G, "finetune_job_checkpoint_timestamp_seconds", "When the newest checkpoint was uploaded.", NAMESPACE, NAME
)
JOB_GPU_MEMORY = _gauge(_G, "finetune_job_peak_gpu_memory_bytes", "Highest GPU memory use.", NAMESPACE, NAME)

_G = Group.ENDED
PHASE_DURATION = _histogram(
    _G,
    "finetune_phase_duration_seconds",
    "How long jobs were in a phase that they have left. Pending begins with the creation of the FineTuneJob.",
    NAMESPACE,
    PHASE,
    buckets=SECONDS_OF_PHASE,
)
RUNS_ENDED = _counter(
    _G, "finetune_runs_ended_total", "Runs that ended, by the phase that they ended in.", NAMESPACE, PHASE
)
ATTEMPTS_STARTED = _counter(_G, "finetune_attempts_started_total", "Attempts that started.", NAMESPACE)
ATTEMPTS_ENDED = _counter(
    _G, "finetune_attempts_ended_total", "Attempts that ended, by the reason of their end.", NAMESPACE, REASON
)
RESTARTS = _counter(_G, "finetune_restarts_total", "Attempts of a run after its first.", NAMESPACE)
GPU_SECONDS = _counter(
    _G, "finetune_gpu_seconds_total", "GPUs times seconds of attempts that ended.", NAMESPACE, RESOURCE
)
GPU_COST = _counter(
    _G,
    "finetune_gpu_cost_total",
    "Price of the GPU time of attempts that ended, in the currency of the price list.",
    NAMESPACE,
    RESOURCE,
)

_G = Group.OPERATOR
BUILD_INFO = _gauge(_G, "finetune_build_info", "Always 1; the operator's version.", "version")
LEADER = _gauge(
    _G, "leader_election_master_status", "1 where this replica holds the Lease, 0 where it waits for it.", NAME
)
WATCHING = _gauge(
    _G,
    "finetune_watching",
    "1 where all watches of the leader are open, 0 where one is not. The namespace * stands for all.",
    NAMESPACE,
)
WATCH_RESTARTS = _counter(
    _G, "finetune_watch_restarts_total", "Times that all watches ended and had to start again.", NAMESPACE
)
RESYNC = _gauge(
    _G, "finetune_resync_last_success_timestamp_seconds", "When everything was last listed whole.", NAMESPACE
)
RECONCILES = _histogram(
    _G, "finetune_reconcile_duration_seconds", "Duration of a reconcile of one job.", buckets=SECONDS_OF_REQUEST
)
RECONCILE_ERRORS = _counter(
    _G, "finetune_reconcile_errors_total", "Reconciles that failed, by the kind of error.", REASON
)
REPORTS = _counter(_G, "finetune_progress_reports_total", "Progress reports of pods, by HTTP status.", "code")
QUEUE_DEPTH = _gauge(_G, "workqueue_depth", "Jobs that wait for a worker.", NAME)
QUEUE_ADDS = _counter(_G, "workqueue_adds_total", "Jobs that became ready.", NAME)
QUEUE_RETRIES = _counter(_G, "workqueue_retries_total", "Jobs that were queued again after an error.", NAME)
QUEUE_WAIT = _histogram(
    _G,
    "workqueue_queue_duration_seconds",
    "How long a job waited for a worker.",
    NAME,
    buckets=SECONDS_OF_REQUEST,
)
QUEUE_WORK = _histogram(
    _G, "workqueue_work_duration_seconds", "How long a worker had a job.", NAME, buckets=SECONDS_OF_REQUEST
)
QUEUE_UNFINISHED = _gauge(
    _G, "workqueue_unfinished_work_seconds", "Seconds that workers have had their current jobs, all together.", NAME
)
QUEUE_LONGEST = _gauge(
    _G, "workqueue_longest_running_processor_seconds", "Longest that a worker has had its current job.", NAME
)
REQUESTS = _counter(
    _G, "rest_client_requests_total", "Requests to the API server, without watches, by status.", "code", "method"
)
REQUEST_DURATION = _histogram(
    _G,
    "rest_client_request_duration_seconds",
    "Duration of requests to the API server, without watches.",
    "verb",
    buckets=SECONDS_OF_REQUEST,
)

ALL: tuple[Metric, ...] = tuple(value for value in globals().values() if isinstance(value, Metric))
