"""Progress records, which a running trainer sends at most a few times a minute.

The POST body is that of transformers' KubeflowCallback, `{"trainerStatus": {…}}`. So the operator also reads the
reports of an unmodified TRL image. This trainer adds its own record under `progress`.
"""

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field

from finetune_trainer.contract.text import Count, PositiveCount, Words
from finetune_trainer.contract.wire import TolerantWire


class Stage(StrEnum):
    """The current work of a pod."""

    STARTING = "Starting"
    FETCHING = "Fetching"
    VALIDATING = "Validating"
    LOADING = "Loading"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    SAVING = "Saving"
    UPLOADING = "Uploading"
    FINISHED = "Finished"


def _finite(value: Any) -> Any:
    """The value; None for NaN and infinities, which JSON cannot represent."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


Number = Annotated[float | None, BeforeValidator(_finite)]


class Progress(TolerantWire):
    """One progress record. Values that are not known yet are absent.

    The status of a FineTuneJob derives from it (`ProgressStatus`).
    """

    stage: Stage = Field(Stage.STARTING, description="What the pod is doing.")
    percent: int | None = Field(None, ge=0, le=100, description="Share of the optimizer steps done.")
    step: Count | None = Field(None, description="Optimizer steps done.")
    total_steps: Count | None = Field(None, description="Optimizer steps in all.")
    epoch: Number = Field(None, description="Passes over the data that are done.")
    loss: Number = Field(
        None, description="Training loss, mean since the last log: nats per token; of method dpo, by pair."
    )
    eval_loss: Number = Field(None, description="Validation loss, in the same unit.")
    reward_margin: Number = Field(
        None,
        description="Method dpo: reward of the chosen answer over that of the rejected one, mean since the last log.",
    )
    reward_accuracy: Number = Field(
        None,
        description="Method dpo: share of the pairs whose chosen answer has the higher reward, since the last log.",
    )
    eval_reward_accuracy: Number = Field(None, description="Method dpo: that share of the validation pairs.")
    learning_rate: Number = Field(None, description="Learning rate of the last step.")
    tokens_per_second: Number = Field(
        None, ge=0, le=1e15, description="Tokens per second of the recent steps, prompts included."
    )
    steps_per_second: Number = Field(None, ge=0, le=1e9, description="Optimizer steps per second of the recent steps.")
    eta_seconds: Count | None = Field(None, description="Seconds until the last step, at the recent rate.")
    resumed_from_step: PositiveCount | None = Field(
        None, description="Step of the checkpoint from which the attempt resumed."
    )
    checkpoint_step: PositiveCount | None = Field(None, description="Step of the newest checkpoint in storage.")
    checkpoint_time: AwareDatetime | None = Field(
        None, description="When that checkpoint was uploaded. Absent when an earlier attempt has made it."
    )
    pass_tokens: PositiveCount | None = Field(
        None,
        description="Largest number of tokens in a forward pass, after GPU memory ran out and the pass was halved.",
    )
    peak_gpu_memory_bytes: Count | None = Field(None, description="Highest GPU memory use, in bytes.")
    peak_memory_bytes: Count | None = Field(None, description="Highest memory use of the process, in bytes.")
    memory_estimate_bytes: Count | None = Field(
        None,
        description="Estimated memory of the training, in bytes: of the GPU, or of the process when there is no GPU.",
    )
    bytes_downloaded: Count | None = Field(None, description="Bytes downloaded.")
    bytes_uploaded: Count | None = Field(None, description="Bytes uploaded.")
    waiting_for: Words | None = Field(
        None, description="Storage that does not answer and is asked again. Absent when the pod waits for nothing."
    )
    heartbeat_time: AwareDatetime | None = Field(None, description="When the pod made this record.")


class Metric(TolerantWire):
    """A name and a value, both strings, as KubeflowCallback sends them."""

    name: str
    value: str


class TrainerStatus(TolerantWire):
    """KubeflowCallback's progress record."""

    progress_percentage: int | None = None
    estimated_remaining_seconds: int | None = None
    metrics: list[Metric] = Field(default_factory=list)
    last_updated_time: AwareDatetime | None = None


_METRICS = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "current_epoch": "epoch",
    "epoch": "epoch",
    "current_step": "step",
    "total_steps": "total_steps",
}


class ProgressReport(TolerantWire):
    """The POST body of a progress report."""

    trainer_status: TrainerStatus | None = None
    progress: Progress | None = None

    def record(self) -> Progress:
        """This trainer's own record if there is one, else a record made from KubeflowCallback's metrics."""
        if self.progress is not None:
            return self.progress
        status = self.trainer_status or TrainerStatus()
        values: dict[str, Any] = {}
        for metric in status.metrics:
            if (field := _METRICS.get(metric.name)) is not None:
                try:
                    number = float(metric.value)
                except ValueError:
                    continue
                if math.isfinite(number):
                    values[field] = int(number) if field in ("step", "total_steps") else number
        return Progress(
            stage=Stage.TRAINING,
            percent=status.progress_percentage,
            eta_seconds=status.estimated_remaining_seconds,
            heartbeat_time=status.last_updated_time,
            **values,
        )
