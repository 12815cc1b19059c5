"""The reasons of failed attempts, with their exit codes and the operator's response.

The trainer takes its exit codes from this table, the operator its classification, and the user reads the remedy. Exit
codes are below 126, because shells and container runtimes use the higher ones. A fault of the request is not retried. A
fault of the environment is retried.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

EXIT_OK = 0


class Policy(StrEnum):
    """The operator's response to a failed attempt."""

    FAIL = "Fail"
    """The job fails, because another attempt would end the same way."""
    RETRY = "Retry"
    """Another attempt follows, and counts toward retry.limit."""
    RETRY_UNCOUNTED = "RetryUncounted"
    """Another attempt follows, and does not count: the cause was outside the job."""


class ExitCode(IntEnum):
    """Exit codes of trainer and preflight; 0 is success."""

    INTERNAL = 1
    USAGE = 2
    INVALID_SPEC = 10
    NOT_SUPPORTED = 11
    DATASET_NOT_FOUND = 12
    DATASET_INVALID = 13
    MODEL_NOT_FOUND = 14
    MODEL_INVALID = 15
    STORAGE_ACCESS_DENIED = 16
    STORAGE_NOT_FOUND = 17
    OUTPUT_CONFLICT = 18
    MODEL_ACCESS_DENIED = 19
    STORAGE_UNAVAILABLE = 20
    GPU_OUT_OF_MEMORY = 21
    DISK_FULL = 22
    LOSS_DIVERGED = 23
    STALLED = 24
    HOST_OUT_OF_MEMORY = 25
    GPU_TOO_SMALL = 26
    QUALITY_GATE_MISSED = 27
    GPU_UNAVAILABLE = 28
    GPU_NOT_SUPPORTED = 29
    PREEMPTED = 30
    SUPERSEDED = 31
    PEER_FAILED = 32
    DATASET_ACCESS_DENIED = 33


class FailureReason(StrEnum):
    """The values of `status.failure.reason` and of conditions' reasons. They are part of the API."""

    INTERNAL = "InternalError"
    INVALID_SPEC = "InvalidSpec"
    NOT_SUPPORTED = "NotSupported"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_ACCESS_DENIED = "DatasetAccessDenied"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_INVALID = "ModelInvalid"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    STORAGE_ACCESS_DENIED = "StorageAccessDenied"
    STORAGE_NOT_FOUND = "StorageNotFound"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    OUTPUT_CONFLICT = "OutputConflict"
    GPU_TOO_SMALL = "GpuTooSmall"
    GPU_UNAVAILABLE = "GpuUnavailable"
    GPU_NOT_SUPPORTED = "GpuNotSupported"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    DISK_FULL = "DiskFull"
    LOSS_DIVERGED = "LossDiverged"
    QUALITY_GATE_MISSED = "QualityGateMissed"
    STALLED = "TrainingStalled"
    PREEMPTED = "Preempted"
    SUPERSEDED = "Superseded"
    PEER_FAILED = "PeerFailed"
    KILLED = "Killed"
    IMAGE_PULL = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_LOST = "PodLost"
    POD_REJECTED = "PodRejected"
    START_DEADLINE = "StartDeadlineExceeded"
    DEADLINE = "DeadlineExceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureClass:
    """The properties of a failure reason.

    Attributes:
        policy: the operator's response.
        exit_code: the exit code with which trainer and preflight report it; None if only the operator can detect it.
        meaning: what has happened, in one or two sentences, for the documentation.
        remedy: what the user can do, in one or two sentences.
    """

    policy: Policy
    exit_code: ExitCode | None
    meaning: str
    remedy: str


_F, _C, _R = Policy.FAIL, Policy.RETRY, Policy.RETRY_UNCOUNTED

FAILURES: dict[FailureReason, FailureClass] = {
    reason: FailureClass(policy=policy, exit_code=code, meaning=meaning, remedy=remedy)
    for reason, policy, code, meaning, remedy in (
        (
            FailureReason.INTERNAL,
            _C,
            ExitCode.INTERNAL,
            "An unexpected error, or an exit without a report.",
            "Read the pod's log, and report the error with its last lines.",
        ),
        (
            FailureReason.INVALID_SPEC,
            _F,
            ExitCode.INVALID_SPEC,
            "Fields contradict each other, or ask for something that the administrator forbids.",
            "Correct the named fields. If they are immutable, create a new job; if not, set another runToken too.",
        ),
        (
            FailureReason.NOT_SUPPORTED,
            _F,
            ExitCode.NOT_SUPPORTED,
            "This version does not support a field, a file format or a server.",
            "Create a new job without the named fields, or use a later version.",
        ),
        (
            FailureReason.DATASET_NOT_FOUND,
            _F,
            ExitCode.DATASET_NOT_FOUND,
            "There is no object at dataset.uri.",
            "Check dataset.uri. The key is case-sensitive.",
        ),
        (
            FailureReason.DATASET_INVALID,
            _F,
            ExitCode.DATASET_INVALID,
            "Some rows cannot be trained. The message names the first ones, with file and line.",
            "Correct the named lines and upload the file again.",
        ),
        (
            FailureReason.DATASET_ACCESS_DENIED,
            _F,
            ExitCode.DATASET_ACCESS_DENIED,
            "The data needs a login: of the Hub (it is gated, or the token is missing or too weak) or of a web server.",
            "Accept the terms on the Hub and give that account's token in model.tokenSecretRef. Copy other data to s3://.",
        ),
        (
            FailureReason.MODEL_NOT_FOUND,
            _F,
            ExitCode.MODEL_NOT_FOUND,
            "The model, revision or adapter does not exist, or it is private.",
            "Check model.uri and model.revision, or lora.initialAdapterUri, and the token of a private model.",
        ),
        (
            FailureReason.MODEL_INVALID,
            _F,
            ExitCode.MODEL_INVALID,
            "The model's files are incomplete, damaged or of an unknown kind.",
            "The model folder needs config.json, a tokenizer and safetensors weights.",
        ),
        (
            FailureReason.MODEL_ACCESS_DENIED,
            _F,
            ExitCode.MODEL_ACCESS_DENIED,
            "The Hub refuses the model's files: the model is gated, or the token is missing, wrong or too weak.",
            "Accept the model's licence on the Hub and give a token of that account in model.tokenSecretRef.",
        ),
        (
            FailureReason.STORAGE_ACCESS_DENIED,
            _F,
            ExitCode.STORAGE_ACCESS_DENIED,
            "Keys are missing or refused, or they have too few rights.",
            "Check the keys in storage.secretRef and the bucket's policy.",
        ),
        (
            FailureReason.STORAGE_NOT_FOUND,
            _F,
            ExitCode.STORAGE_NOT_FOUND,
            "The bucket does not exist.",
            "Create the bucket, or correct its name and storage.endpoint.",
        ),
        (
            FailureReason.STORAGE_UNAVAILABLE,
            _C,
            ExitCode.STORAGE_UNAVAILABLE,
            "The storage, the Hub or the credential agent does not answer, or answers with an error.",
            "Check that storage.endpoint, the Hub or the credential agent can be reached from inside the cluster.",
        ),
        (
            FailureReason.OUTPUT_CONFLICT,
            _F,
            ExitCode.OUTPUT_CONFLICT,
            "An adapter of this run exists and must not be used, or it is damaged.",
            "Set output.onExisting to Reuse or Replace, or use another output.uri.",
        ),
        (
            FailureReason.GPU_TOO_SMALL,
            _F,
            ExitCode.GPU_TOO_SMALL,
            "By preflight's estimate, not even the smallest forward pass fits the GPU that the job asks for.",
            "Ask for a GPU with more memory, lower dataset.maxLength or lora.rank, or quantise to nf4.",
        ),
        (
            FailureReason.GPU_UNAVAILABLE,
            _C,
            ExitCode.GPU_UNAVAILABLE,
            "The job asks for a GPU, and its pod finds none that works: no driver, an old driver, or a broken GPU.",
            "Look at the node's GPU driver; docs/resources-and-gpus.md has the versions.",
        ),
        (
            FailureReason.GPU_NOT_SUPPORTED,
            _F,
            ExitCode.GPU_NOT_SUPPORTED,
            "The trainer has no kernels for the GPU: its compute capability is below 7.5.",
            "Ask for a Turing GPU (T4) or a newer one, with scheduling.nodeSelector for example.",
        ),
        (
            FailureReason.GPU_OUT_OF_MEMORY,
            _C,
            ExitCode.GPU_OUT_OF_MEMORY,
            "The GPU ran out of memory.",
            "Lower dataset.maxLength or training.microBatchSize, or ask for a larger GPU.",
        ),
        (
            FailureReason.HOST_OUT_OF_MEMORY,
            _C,
            ExitCode.HOST_OUT_OF_MEMORY,
            "The container reached its memory limit. A second occurrence fails the job.",
            "Raise resources.memory.",
        ),
        (
            FailureReason.DISK_FULL,
            _F,
            ExitCode.DISK_FULL,
            "The pod's disk was too small for model, data and adapter.",
            "Raise resources.ephemeralStorage.",
        ),
        (
            FailureReason.LOSS_DIVERGED,
            _F,
            ExitCode.LOSS_DIVERGED,
            "Loss, validation loss or gradient was NaN or infinite, or the training destroyed what the model knew.",
            "Lower training.learningRate, or look for damaged rows.",
        ),
        (
            FailureReason.QUALITY_GATE_MISSED,
            _F,
            ExitCode.QUALITY_GATE_MISSED,
            "The trained adapter did not reach evaluation.gate. Nothing was committed.",
            "Create a new job that trains longer, has other data or settings, or a lower gate.",
        ),
        (
            FailureReason.STALLED,
            _C,
            ExitCode.STALLED,
            "No progress report came within stallTimeoutSeconds.",
            "Raise stallTimeoutSeconds if a download, a step or an upload can take that long.",
        ),
        (
            FailureReason.PREEMPTED,
            _R,
            ExitCode.PREEMPTED,
            "Kubernetes asked the pod to end: eviction, drain, spec.suspend.",
            "Nothing to do: another attempt follows.",
        ),
        (
            FailureReason.SUPERSEDED,
            _R,
            ExitCode.SUPERSEDED,
            "Another pod of the same run committed its adapter first.",
            "Nothing to do: another pod of this job has written the adapter.",
        ),
        (
            FailureReason.PEER_FAILED,
            _C,
            ExitCode.PEER_FAILED,
            "Another process of the same training ended, or never started. Its own reason is not known.",
            "Look at the other pods of the attempt. All of resources.nodes must be able to run at the same time.",
        ),
        (
            FailureReason.KILLED,
            _C,
            None,
            "A signal from outside ended the container.",
            "Look for problems of the node.",
        ),
        (
            FailureReason.IMAGE_PULL,
            _C,
            None,
            "The image cannot be pulled. The pod waits until startDeadlineSeconds.",
            "Check the image name, the registry and scheduling.imagePullSecrets.",
        ),
        (
            FailureReason.UNSCHEDULABLE,
            _C,
            None,
            "No node fits. The pod waits until startDeadlineSeconds.",
            "Free a GPU, or lower resources.",
        ),
        (
            FailureReason.POD_REJECTED,
            _C,
            None,
            "The node refused the pod (unhealthy GPU, too little of a resource), or an injected init container failed.",
            "Look at the pod and its node.",
        ),
        (
            FailureReason.POD_LOST,
            _R,
            None,
            "The pod, its node or its Job is gone.",
            "Nothing to do: another attempt follows.",
        ),
        (
            FailureReason.START_DEADLINE,
            _F,
            None,
            "The pod did not start within startDeadlineSeconds.",
            "Raise startDeadlineSeconds, or provide what the pod waits for.",
        ),
        (
            FailureReason.DEADLINE,
            _F,
            None,
            "The job did not end within activeDeadlineSeconds.",
            "Raise activeDeadlineSeconds, or shorten the training.",
        ),
    )
}

BY_EXIT_CODE: dict[int, FailureReason] = {
    int(failure.exit_code): reason for reason, failure in FAILURES.items() if failure.exit_code is not None
}


def exit_code_of(reason: FailureReason | None) -> int:
    """The exit code of a process that ends with this reason: 0 without one, 1 for one that only the operator sees."""
    if reason is None:
        return EXIT_OK
    code = FAILURES[reason].exit_code
    return int(code if code is not None else ExitCode.INTERNAL)


class TrainerError(Exception):
    """A failure with a reason. The process exits with the reason's code, and the user reads the message.

    Attributes:
        reason: the reason.
        message: one sentence or a short list. It begins with the facts: what, where, which value.
    """

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return exit_code_of(self.reason)
