"""The status of a FineTuneJob.

What pods report comes from the contract's models. Only fields with another form in the status are declared here: the
Kubernetes API conventions require strings for numbers with decimals.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field

from finetune_operator.api.reasons import Phase
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.recipe.profile import ProfileRecord
from finetune_trainer.contract.termination import OutputRecord, PreflightSummary
from finetune_trainer.contract.text import MAX_MESSAGE, MAX_METRICS, MAX_TEXT, Count
from finetune_trainer.contract.wire import TolerantWire, map_list

MAX_ATTEMPTS_KEPT = 10

Message = Annotated[str, Field(max_length=MAX_MESSAGE)]
ShortText = Annotated[str, Field(max_length=MAX_TEXT)]


def _decimal(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def _as_in(record: type[BaseModel], name: str) -> Any:
    """An optional field with the description that it has in the contract."""
    return Field(None, description=record.model_fields[name].description)


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


class ProgressStatus(Progress):
    """The last progress record. Only the fields that have another form in the status are declared here."""

    stage: ShortText | None = _as_in(Progress, "stage")  # type: ignore[assignment]
    """Text, so that a stage of a later trainer can be read."""
    steps_per_second: ShortText | None = _as_in(Progress, "steps_per_second")  # type: ignore[assignment]
    epoch: ShortText | None = _as_in(Progress, "epoch")  # type: ignore[assignment]
    loss: ShortText | None = _as_in(Progress, "loss")  # type: ignore[assignment]
    eval_loss: ShortText | None = _as_in(Progress, "eval_loss")  # type: ignore[assignment]
    reward_margin: ShortText | None = _as_in(Progress, "reward_margin")  # type: ignore[assignment]
    reward_accuracy: ShortText | None = _as_in(Progress, "reward_accuracy")  # type: ignore[assignment]
    eval_reward_accuracy: ShortText | None = _as_in(Progress, "eval_reward_accuracy")  # type: ignore[assignment]
    learning_rate: ShortText | None = _as_in(Progress, "learning_rate")  # type: ignore[assignment]
    tokens_per_second: Count | None = _as_in(Progress, "tokens_per_second")
    display: ShortText | None = Field(None, description='For the PROGRESS column. Example: "62% 310/500".')

    @classmethod
    def of(cls, record: Progress) -> "ProgressStatus":
        """The record in the status's form."""
        percent = record.percent
        if percent is None and record.step is not None and record.total_steps:
            percent = min(100, 100 * record.step // record.total_steps)
        display = f"{percent}%" if percent is not None else str(record.stage)
        if record.step is not None and record.total_steps:
            display += f" {record.step}/{record.total_steps}"
        rate = record.tokens_per_second
        own_form = {
            "stage": str(record.stage),
            "display": display,
            "percent": percent,
            "epoch": _decimal(record.epoch, ".2f"),
            "loss": _decimal(record.loss, ".4f"),
            "eval_loss": _decimal(record.eval_loss, ".4f"),
            "reward_margin": _decimal(record.reward_margin, ".4f"),
            "reward_accuracy": _decimal(record.reward_accuracy, ".4f"),
            "eval_reward_accuracy": _decimal(record.eval_reward_accuracy, ".4f"),
            "learning_rate": _decimal(record.learning_rate, ".3g"),
            "steps_per_second": _decimal(record.steps_per_second, ".4g"),
            "tokens_per_second": None if rate is None else int(rate),
        }
        return cls.model_validate({**dict(record), **own_form})


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


class OutputStatus(OutputRecord):
    """Where the adapter is. Its metrics are strings."""

    metrics: Annotated[dict[str, ShortText], Field(max_length=MAX_METRICS)] = Field(  # type: ignore[assignment]
        default_factory=dict, description=OutputRecord.model_fields["metrics"].description
    )

    @classmethod
    def of(cls, record: OutputRecord) -> "OutputStatus":
        """The record in the status's form."""
        values = record.to_dict()
        values["metrics"] = {name: format(value, ".6g") for name, value in record.metrics.items()}
        return cls.model_validate(values)


MAX_PROFILE_VALUES = 65_536
"""Characters. Every job carries the values, so that no change of a profile reaches a run that has begun."""


class ProfileCeiling(TolerantWire):
    """The lowest ceiling of one field."""

    path: ShortText = Field(description="The field. Example: resources.gpus.")
    value: ShortText = Field(description="Highest value that the field may have.")
    source: ShortText = Field(description="Kind and name of the profile that says so.")


class ProfileStatus(ProfileRecord):
    """The profiles of this run, as they were when it began. Every attempt uses these values."""

    display: ShortText = Field("", description="Names of the profiles, for the PROFILE column.")
    values: Annotated[str, Field(max_length=MAX_PROFILE_VALUES)] = Field(
        "{}", description="What the profiles supply where spec says nothing, as JSON in the form of spec."
    )
    ceilings: Annotated[list[ProfileCeiling], Field(max_length=32)] = Field(
        default_factory=list, description="The ceilings of the profiles, for each field the lowest."
    )


class FineTuneJobStatus(TolerantWire):
    """What the operator knows about the job."""

    observed_generation: int = Field(
        -1,
        description="Generation of the spec that this status is about; -1 before the operator has seen the job. "
        "Default: -1.",
    )
    phase: Phase | None = Field(None, description="Summary for people. Programs should read the conditions.")
    last_phase_transition_time: datetime | None = Field(None, description="When the phase last changed.")
    conditions: Annotated[list[Condition], Field(max_length=16)] = Field(
        default_factory=list, description="Conditions, one for each type.", json_schema_extra=map_list("type")
    )
    run_token: ShortText | None = Field(None, description="The spec.runToken that the current run belongs to.")
    profile: ProfileStatus | None = Field(
        None, description="The profiles that this run was begun with. Absent without profiles."
    )
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
    preflight: PreflightSummary | None = Field(None, description="What preflight found.")
    failure: Failure | None = Field(None, description="Why the job failed.")
    output: OutputStatus | None = Field(None, description="Where the adapter is.")
    fingerprint: ShortText | None = Field(
        None, description="Checksum of everything that shapes the result; names the run."
    )
    gpus: int | None = Field(None, ge=0, description="GPUs of all training pods together.")
    gpu_seconds: int = Field(0, ge=0, description="GPUs times seconds, over all training pods of ended attempts.")
    gpu_price: ShortText | None = Field(
        None,
        description="Price of one GPU for one hour, from the administrator's price list when the attempt started. "
        "Absent without a price.",
    )
    cost: ShortText | None = Field(
        None,
        description="Price of gpuSeconds, each attempt at its own gpuPrice. Absent while there is no price. "
        'Example: "12.5000".',
    )
    start_time: datetime | None = Field(
        None, description="When the operator first saw this run, or when it was last resumed."
    )
    completion_time: datetime | None = Field(None, description="When this run ended.")

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type; None if there is none."""
        return next((item for item in self.conditions if item.type == type_), None)

    def is_true(self, type_: str) -> bool:
        """Whether that condition is True."""
        condition = self.condition(type_)
        return condition is not None and condition.status is ConditionStatus.TRUE
