"""The status of a FineTuneJob. Numbers that are not whole are strings, as the API conventions want them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_operator.api.reasons import Phase
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.text import MAX_MESSAGE, MAX_METRICS, MAX_MODULES, MAX_TEXT
from finetune_trainer.contract.wire import TolerantWire, map_list

MAX_ATTEMPTS_KEPT = 10

Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
ShortText = Annotated[str, Field(max_length=MAX_TEXT)]


class ConditionStatus(StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(TolerantWire):
    """A metav1.Condition."""

    type: Annotated[str, Field(max_length=316)] = Field(description="Type of the condition.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=1024)] = Field(description="One CamelCase word for programs.")
    message: Message = Field("", description="Text for people.")
    observed_generation: int = Field(0, ge=0, description="Generation of the spec that the condition is about.")
    last_transition_time: datetime = Field(description="When status last changed.")


class ProgressStatus(TolerantWire):
    """The last progress record."""

    stage: ShortText | None = Field(None, description="What the pod is doing.")
    display: ShortText | None = Field(None, description='For the PROGRESS column. Example: "62% 310/500".')
    percent: int | None = Field(None, ge=0, le=100, description="Share of the optimizer steps done.")
    step: int | None = Field(None, ge=0, description="Optimizer steps done.")
    total_steps: int | None = Field(None, ge=0, description="Optimizer steps in all.")
    epoch: ShortText | None = Field(None, description="Passes over the data that are done.")
    loss: ShortText | None = Field(None, description="Training loss, nats per token.")
    eval_loss: ShortText | None = Field(None, description="Validation loss, nats per token.")
    learning_rate: ShortText | None = Field(None, description="Learning rate of the last step.")
    tokens_per_second: int | None = Field(None, ge=0, description="Trained tokens per second.")
    eta_seconds: int | None = Field(None, ge=0, description="Seconds until the last step.")
    resumed_from_step: int | None = Field(
        None, ge=1, description="Step of the checkpoint from which the attempt resumed."
    )
    checkpoint_step: int | None = Field(None, ge=1, description="Step of the newest checkpoint in storage.")
    pass_tokens: int | None = Field(
        None,
        ge=1,
        description="Largest number of tokens in a forward pass, after GPU memory ran out and the pass was halved.",
    )
    peak_gpu_memory_bytes: int | None = Field(None, ge=0, description="Highest GPU memory use, in bytes.")
    peak_memory_bytes: int | None = Field(None, ge=0, description="Highest memory use of the process, in bytes.")
    memory_estimate_bytes: int | None = Field(
        None,
        ge=0,
        description="Estimated memory of the training, in bytes: of the GPU, or of the process when there is no GPU.",
    )
    bytes_downloaded: int | None = Field(None, ge=0, description="Bytes downloaded.")
    bytes_uploaded: int | None = Field(None, ge=0, description="Bytes uploaded.")
    waiting_for: ShortText | None = Field(
        None, description="Storage that does not answer and is asked again. Absent when the pod waits for nothing."
    )
    heartbeat_time: datetime | None = Field(None, description="When the pod made this record.")

    @classmethod
    def of(cls, record: Progress) -> "ProgressStatus":
        """The record in the status's form."""
        percent = record.percent
        if percent is None and record.step is not None and record.total_steps:
            percent = min(100, 100 * record.step // record.total_steps)
        display = f"{percent}%" if percent is not None else str(record.stage)
        if record.step is not None and record.total_steps:
            display += f" {record.step}/{record.total_steps}"
        return cls(
            stage=record.stage,
            display=display,
            percent=percent,
            step=record.step,
            total_steps=record.total_steps,
            epoch=_decimal(record.epoch, ".2f"),
            loss=_decimal(record.loss, ".4f"),
            eval_loss=_decimal(record.eval_loss, ".4f"),
            learning_rate=_decimal(record.learning_rate, ".3g"),
            tokens_per_second=None if record.tokens_per_second is None else int(record.tokens_per_second),
            eta_seconds=record.eta_seconds,
            resumed_from_step=record.resumed_from_step,
            checkpoint_step=record.checkpoint_step,
            pass_tokens=record.pass_tokens,
            peak_gpu_memory_bytes=record.peak_gpu_memory_bytes,
            peak_memory_bytes=record.peak_memory_bytes,
            memory_estimate_bytes=record.memory_estimate_bytes,
            bytes_downloaded=record.bytes_downloaded,
            bytes_uploaded=record.bytes_uploaded,
            waiting_for=None if record.waiting_for is None else record.waiting_for[:MAX_TEXT],
            heartbeat_time=record.heartbeat_time,
        )


def _decimal(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


class PreflightStatus(TolerantWire):
    """What preflight found."""

    rows: int | None = Field(None, ge=0, description="Rows of the dataset.")
    bytes: int | None = Field(None, ge=0, description="Bytes of the dataset.")
    schema_: ShortText | None = Field(None, alias="schema", description="Shape of the rows.")
    problems: int = Field(0, ge=0, description="Number of problems in the data.")
    duplicates: int | None = Field(None, ge=0, description="Rows that train the same as an earlier row.")
    tokens: int | None = Field(None, ge=0, description="Tokens of one epoch, after the cut at dataset.maxLength.")
    tokens_p50: int | None = Field(None, ge=0, description="Tokens that half of the rows do not exceed.")
    tokens_p95: int | None = Field(None, ge=0, description="Tokens that 95 % of the rows do not exceed.")
    tokens_max: int | None = Field(None, ge=0, description="Tokens of the longest row.")
    truncated: int | None = Field(None, ge=0, description="Rows longer than dataset.maxLength, which are cut.")
    dropped: int | None = Field(None, ge=0, description="Rows without a token to train, which are dropped.")
    sampled_rows: int | None = Field(
        None,
        ge=0,
        description="Rows from which the numbers of tokens are estimated. Absent when all rows were counted.",
    )
    steps: int | None = Field(None, ge=0, description="Optimizer steps of the training.")
    model_parameters: int | None = Field(None, ge=0, description="Weights of the base model.")
    model_bytes: int | None = Field(None, ge=0, description="Bytes of the base model's files.")
    model_revision: ShortText | None = Field(
        None, description="Commit of a Hub model that preflight found. Every attempt trains on it."
    )
    memory_estimate_bytes: int | None = Field(
        None,
        ge=0,
        description="Estimated least memory of the training, in bytes: of the GPU, or of the process.",
    )


class Attempt(TolerantWire):
    """One attempt and how it ended."""

    number: int = Field(ge=1, description="Number of the attempt, from 1.")
    start_time: datetime | None = Field(None, description="When its first Job was created.")
    end_time: datetime | None = Field(None, description="When it ended; absent while it runs.")
    reason: ShortText | None = Field(None, description="Why it ended.")
    message: Message | None = Field(None, description="What is known about the end.")
    exit_code: int | None = Field(None, description="Exit code of the container, when there was one.")
    counted: bool | None = Field(None, description="Whether it counts against retry.limit.")


class Failure(TolerantWire):
    """Why the job failed, and what to do."""

    reason: ShortText = Field(description="One CamelCase word for programs.")
    message: Message = Field(description="The facts, and what to do.")
    exit_code: int | None = Field(None, description="Exit code of the container, when there was one.")


class OutputStatus(TolerantWire):
    """Where the adapter is."""

    uri: ShortText = Field(description="The adapter's folder: a plain PEFT layout.")
    merged_uri: ShortText | None = Field(
        None, description="The merged model's folder, with output.merged. It loads without PEFT."
    )
    manifest_uri: ShortText = Field(description="The manifest with the checksums of every file.")
    digest: ShortText = Field(description="Digest of the manifest (sha256:…).")
    size_bytes: int = Field(ge=0, description="Bytes of all files of the output.")
    base_model: ShortText = Field(description="The base model, as a server should name it.")
    rank: int = Field(ge=1, description="Rank of the adapter. A server's maximal LoRA rank must be at least this.")
    target_modules: Annotated[list[ShortText], Field(max_length=MAX_MODULES)] = Field(
        default_factory=list, description="Modules that have an adapter."
    )
    metrics: Annotated[dict[str, ShortText], Field(max_length=MAX_METRICS)] = Field(
        default_factory=dict, description="Final metrics, by name."
    )

    @classmethod
    def of(cls, record: OutputRecord) -> "OutputStatus":
        """The record in the status's form."""
        values = record.to_dict()
        values["metrics"] = {name: format(value, ".6g") for name, value in record.metrics.items()}
        return cls.model_validate(values)


class FineTuneJobStatus(TolerantWire):
    """What the operator knows about the job."""

    observed_generation: int = Field(
        -1,
        description="Generation of the spec that this status is about; -1 before the operator has seen the job. "
        "Default: -1.",
    )
    phase: Phase | None = Field(None, description="Summary for people. Programs should read the conditions.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list, description="Conditions, one for each type.", json_schema_extra=map_list("type")
    )
    run_token: ShortText | None = Field(None, description="The spec.runToken that the current run belongs to.")
    attempt: int = Field(0, ge=0, description="Number of the current attempt; 0 before the first.")
    restarts: int = Field(0, ge=0, description="Attempts of this run after its first.")
    counted_failures: int = Field(0, ge=0, description="Failures of this run that count against retry.limit.")
    attempts: Annotated[list[Attempt], Field(max_length=MAX_ATTEMPTS_KEPT)] = Field(
        default_factory=list,
        description="The newest attempts and why each ended.",
        json_schema_extra=map_list("number"),
    )
    job_name: ShortText | None = Field(None, description="The current batch Job, for kubectl logs job/NAME.")
    job_uid: ShortText | None = Field(
        None, description="UID of that Job, which the operator created. A Job with another UID is ignored."
    )
    pod_name: ShortText | None = Field(None, description="The current pod.")
    progress: ProgressStatus | None = Field(None, description="The last progress record.")
    preflight: PreflightStatus | None = Field(None, description="What preflight found.")
    failure: Failure | None = Field(None, description="Why the job failed.")
    output: OutputStatus | None = Field(None, description="Where the adapter is.")
    fingerprint: ShortText | None = Field(
        None, description="Checksum of everything that shapes the result; names the run."
    )
    gpus: int | None = Field(None, ge=0, description="GPUs of all training pods together.")
    gpu_seconds: int = Field(0, ge=0, description="GPUs times seconds, over all training pods of ended attempts.")
    start_time: datetime | None = Field(
        None, description="When the operator first saw this run, or when it was last resumed."
    )
    completion_time: datetime | None = Field(None, description="When this run ended.")

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((item for item in self.conditions if item.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether that condition is True."""
        condition = self.condition(type_)
        return condition is not None and condition.status is ConditionStatus.TRUE
