"""How the adapter is trained, measured and saved on the way."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.uri import OutputUri
from finetune_trainer.contract.wire import DECIMAL_LENGTH, Decimal, DecimalRange, Exclusive, ObjectRule, Wire

DEFAULT_RESTARTS = 1
"""Restarts of `cosine_with_restarts` when none are named; without any it would be `cosine`."""
DEFAULT_EPOCHS = 3
"""Passes over the data when neither epochs nor maxSteps is set (Hugging Face's default)."""


class Scheduler(StrEnum):
    """Learning-rate schedules, by transformers' names."""

    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    INVERSE_SQRT = "inverse_sqrt"


class Optimizer(StrEnum):
    """Optimizers, by transformers' names."""

    ADAMW_TORCH = "adamw_torch"
    ADAMW_TORCH_FUSED = "adamw_torch_fused"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_32BIT = "paged_adamw_32bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    ADAFACTOR = "adafactor"
    LION_32BIT = "lion_32bit"
    LION_8BIT = "lion_8bit"
    SGD = "sgd"


LearningRate = Annotated[
    str,
    DecimalRange('must be a decimal in quotes above "0", for example "2e-4"', above=0.0),
    Field(max_length=DECIMAL_LENGTH),
]


LoraPlusRatio = Annotated[
    str,
    DecimalRange('must be a decimal in quotes above "0", for example "16"', above=0.0),
    Field(max_length=DECIMAL_LENGTH),
]


class EarlyStopping(Wire):
    """Stop when the validation loss no longer falls."""

    patience: int = Field(
        3, ge=1, le=100, description="Evaluations in a row without improvement before the end. Default: 3."
    )
    min_improvement: Decimal = Field(
        "0",
        description="Fall of the validation loss, in nats per token below the last improvement, that counts as one. "
        'Default: "0", any fall. Example: "0.01".',
    )


_LENGTH = Exclusive(
    "epochs",
    "maxSteps",
    required=False,
    message="set epochs or maxSteps, not both: remove one of them",
)


class TrainingSpec(Wire):
    """Length, learning rate, batch and optimizer."""

    model_config = ConfigDict(json_schema_extra=_LENGTH.schema)

    epochs: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Passes over the data. Default: 3 when maxSteps is not set. Example: 2.",
    )
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs. Example: 500."
    )
    learning_rate: LearningRate = Field("2e-4", description='Peak learning rate, in quotes. Default: "2e-4".')
    scheduler: Scheduler = Field(
        Scheduler.COSINE,
        description="Learning-rate schedule, by its name in transformers. Default: cosine.",
    )
    restarts: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Times that cosine_with_restarts goes back to the peak; no other schedule restarts. Default: 1.",
    )
    min_learning_rate: Decimal | None = Field(
        None,
        description="Learning rate at the end of a cosine schedule, below learningRate; no other schedule has one. "
        'Default: "0". Example: "2e-5".',
    )
    lora_plus_ratio: LoraPlusRatio | None = Field(
        None,
        description="Learning rate of the adapter's B matrices over that of all else (LoRA+). Default: none, they "
        'learn alike. Example: "16".',
    )
    warmup: Decimal = Field(
        "0.03",
        description='Warm-up: below "1" a share of all steps, from "1" on a number of steps. Default: "0.03".',
    )
    batch_size: int = Field(
        16,
        ge=1,
        le=65_536,
        description="Rows per optimizer step over all GPUs and accumulation steps. Default: 16.",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Rows per forward pass of one GPU; must divide batchSize. Default: chosen from the memory at hand.",
    )
    optimizer: Optimizer = Field(
        Optimizer.ADAMW_TORCH_FUSED,
        description="Optimizer, by its name in transformers. Default: adamw_torch_fused.",
    )
    weight_decay: Decimal = Field("0", description='Weight decay. Default: "0".')
    max_grad_norm: Decimal = Field("1.0", description='Gradient-norm clipping; "0" turns it off. Default: "1.0".')
    neftune_alpha: Decimal | None = Field(
        None,
        description="Scale of the NEFTune noise on the embeddings, drawn evenly within alpha/sqrt(tokens of the row x "
        'hidden size). Default: none. Example: "5".',
    )
    gradient_checkpointing: Switch = Field(
        Switch.AUTO,
        description="Recompute activations in the backward pass to save memory: auto (where they do not fit), enabled "
        "or disabled. Default: auto.",
    )
    seed: int = Field(42, ge=0, le=4_294_967_295, description="Seed of every random choice. Default: 42.")
    logging_steps: int = Field(
        1, ge=1, le=100_000, description="Optimizer steps between two logged losses. Default: 1."
    )
    early_stopping: EarlyStopping | None = Field(
        None,
        description="Stop early by the validation loss; needs dataset.validation and evaluation.everySteps. "
        "Default: none.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        _LENGTH.check(self.epochs, self.max_steps)
        return self


Perplexity = Annotated[
    str,
    DecimalRange('must be a decimal in quotes above "1", which no perplexity is below; for example "8"', above=1.0),
    Field(max_length=DECIMAL_LENGTH),
]

_GATE: tuple[ObjectRule["Gate"], ...] = (
    ObjectRule(
        expression="has(self.minLossImprovement) || has(self.maxPerplexity)",
        holds=lambda gate: gate.min_loss_improvement is not None or gate.max_perplexity is not None,
        message="set minLossImprovement, maxPerplexity, or both: an empty gate lets everything pass",
    ),
)


class Gate(Wire):
    """What the adapter must reach to count as a success; one that does not is not kept."""

    model_config = ConfigDict(json_schema_extra=lambda schema: ObjectRule.add(schema, _GATE))

    min_loss_improvement: Decimal | None = Field(
        None,
        description="Least fall of the validation loss, nats per token, from the base model to the tuned one. "
        'Example: "0.1".',
    )
    max_perplexity: Perplexity | None = Field(
        None, description='Highest validation perplexity (e to the loss) of the tuned model, above 1. Example: "8".'
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        ObjectRule.check(self, _GATE)
        return self


class EvaluationSpec(Wire):
    """How the adapter is measured on the rows of dataset.validation."""

    every_steps: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Optimizer steps between evaluations; needs dataset.validation. The adapter that is kept is then "
        "the one with the lowest validation loss. Default: only at the end, and the last adapter is kept. Example: 50.",
    )
    gate: Gate | None = Field(None, description="What the adapter must reach; needs dataset.validation. Default: none.")
    sample_prompts: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=2000)]],
            Field(min_length=1, max_length=16),
        ]
        | None
    ) = Field(
        None,
        description="Prompts that base and tuned model answer side by side at the end, in the report. A prompt is a "
        "user's turn where the rows are conversations, else the beginning of a text.",
    )


DEFAULT_CHECKPOINT_MINUTES = 10
"""Minutes between checkpoints when neither everySteps nor everyMinutes is set."""


class CheckpointSpec(Wire):
    """How often the training state is saved, so that the next attempt goes on at its step.

    Besides, a pod that is told to end saves it at once. The checkpoints go when the adapter is there.
    """

    every_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Optimizer steps between checkpoints. Example: 100."
    )
    every_minutes: int | None = Field(
        None,
        ge=1,
        le=10_080,
        description="Minutes between checkpoints; with everySteps too, whichever comes first. Default: 10 when "
        "everySteps is not set.",
    )
    keep: int = Field(2, ge=1, le=100, description="Newest checkpoints that are kept. Default: 2.")
    uri: OutputUri | None = Field(
        None,
        description="Prefix under which checkpoints go. Default: output.uri. Example: s3://scratch/checkpoints.",
    )
