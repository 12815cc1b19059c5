"""The sections `training`, `evaluation` and `checkpoint`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.rule import decimal
from finetune_trainer.contract.scalar import DECIMAL_LENGTH, PLAIN_LINES, Decimal
from finetune_trainer.contract.uri import OutputUri
from finetune_trainer.contract.wire import Wire

DEFAULT_RESTARTS = 1
"""Restarts of `cosine_with_restarts` when `restarts` is not set; with none it would be the same as `cosine`."""
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
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "0", for example "2e-4"', above=0.0),
]


LoraPlusRatio = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "0", for example "16"', above=0.0),
]


class EvaluationMetric(StrEnum):
    """What says which adapter is better."""

    LOSS = "loss"
    """The validation loss, lower."""
    ACCURACY = "accuracy"
    """The share of the validation pairs whose chosen answer has the higher reward, higher."""


class EarlyStopping(Wire):
    """Early stopping: the training ends when the validation loss, or the accuracy, no longer improves."""

    patience: int = Field(
        3,
        ge=1,
        le=100,
        description="Evaluations in a row without improvement after which the training ends. Default: 3.",
    )
    min_improvement: Decimal = Field(
        "0",
        description="Smallest decrease of the validation loss, against its value at the last improvement, that counts "
        'as an improvement, in nats per token; of the accuracy, smallest increase. Default: "0", any. Example: "0.01".',
    )
    metric: EvaluationMetric = Field(
        EvaluationMetric.LOSS,
        description="What must improve: the validation loss, or with method dpo the accuracy on the validation pairs. "
        "The adapter that is kept is the best by it. Default: loss.",
    )


class TrainingSpec(Wire):
    """Length, learning rate, batch and optimizer."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Passes over the data. Default: 3 when maxSteps is not set. Example: 2.",
    )
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Optimizer steps, instead of epochs. Example: 500."
    )
    learning_rate: LearningRate = Field("2e-4", description='Highest learning rate, in quotes. Default: "2e-4".')
    scheduler: Scheduler = Field(
        Scheduler.COSINE,
        description="Learning-rate schedule, by its name in transformers. Default: cosine.",
    )
    restarts: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="How often cosine_with_restarts returns to the highest learning rate. For this schedule only. "
        "Default: 1.",
    )
    min_learning_rate: Decimal | None = Field(
        None,
        description="Learning rate at the end of a cosine schedule, below learningRate. For this schedule only. "
        'Default: "0". Example: "2e-5".',
    )
    lora_plus_ratio: LoraPlusRatio | None = Field(
        None,
        description="Learning rate of the adapter's B matrices, as a multiple of learningRate (LoRA+). Default: none, "
        'all weights have the same learning rate. Example: "16".',
    )
    warmup: Decimal = Field(
        "0.03",
        description='Length of the warm-up, in which the learning rate rises: below "1" a share of all steps, from '
        '"1" on a number of steps. Default: "0.03".',
    )
    batch_size: int = Field(
        16,
        ge=1,
        le=65_536,
        description="Rows per optimizer step, over all GPUs and forward passes. Default: 16.",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Rows per forward pass of one GPU. Must divide batchSize. Default: as many as fit into memory.",
    )
    optimizer: Optimizer = Field(
        Optimizer.ADAMW_TORCH_FUSED,
        description="Optimizer, by its name in transformers. Default: adamw_torch_fused.",
    )
    weight_decay: Decimal = Field("0", description='Weight decay. Default: "0".')
    max_grad_norm: Decimal = Field(
        "1.0",
        description='Largest norm of the gradient; a larger gradient is scaled down. "0" turns this off. Default: '
        '"1.0".',
    )
    neftune_alpha: Decimal | None = Field(
        None,
        description="Scale alpha of the NEFTune noise on the embeddings. The noise is uniform between plus and minus "
        'alpha/sqrt(tokens of the row x hidden size). Default: none. Example: "5".',
    )
    gradient_checkpointing: Switch = Field(
        Switch.AUTO,
        description="Compute activations again in the backward pass, to save memory: auto (when they do not fit), "
        "enabled or disabled. Default: auto.",
    )
    seed: int = Field(42, ge=0, le=4_294_967_295, description="Seed of every random choice. Default: 42.")
    logging_steps: int = Field(
        1, ge=1, le=100_000, description="Optimizer steps between two logged losses. Default: 1."
    )
    early_stopping: EarlyStopping | None = Field(
        None,
        description="End the training when the validation loss no longer improves. Needs dataset.validation and "
        "evaluation.everySteps. Default: none.",
    )


Accuracy = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "0" and at most "1", for example "0.7"', above=0.0, at_most=1.0),
]


Perplexity = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "1", which no perplexity is below; for example "8"', above=1.0),
]


class Gate(Wire):
    """The quality gate. An adapter that does not reach it is not kept, and the job fails."""

    min_loss_improvement: Decimal | None = Field(
        None,
        description="How far the tuned model's validation loss must be below the base model's, in nats per token. "
        'Example: "0.1".',
    )
    max_perplexity: Perplexity | None = Field(
        None,
        description='Highest allowed validation perplexity (e to the loss) of the tuned model, above 1. Example: "8".',
    )
    min_accuracy: Accuracy | None = Field(
        None,
        description="Least share of the validation pairs whose chosen answer has the higher reward. For method: dpo. "
        'Example: "0.7".',
    )


class EvaluationSpec(Wire):
    """How the adapter is evaluated on the validation rows."""

    every_steps: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Optimizer steps between evaluations. Needs dataset.validation. The adapter with the lowest "
        "validation loss is kept. Default: only at the end, and the last adapter is kept. Example: 50.",
    )
    gate: Gate | None = Field(
        None,
        description="Quality gate: an adapter that does not reach it is not kept, and the job fails. Needs "
        "dataset.validation. Default: none.",
    )
    sample_prompts: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=2000), PLAIN_LINES]],
            Field(min_length=1, max_length=16),
        ]
        | None
    ) = Field(
        None,
        description="Prompts that base and tuned model answer at the end; the report shows the answers side by "
        "side. When the rows are conversations, a prompt is a user's turn; otherwise it is the "
        "beginning of a text.",
    )


DEFAULT_CHECKPOINT_MINUTES = 10
"""Minutes between checkpoints when neither everySteps nor everyMinutes is set."""


class CheckpointSpec(Wire):
    """How often the training state is saved. The next attempt resumes from the newest checkpoint.

    A pod also saves a checkpoint when it gets SIGTERM. The checkpoints are deleted when the adapter is committed.
    """

    every_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Optimizer steps between checkpoints. Example: 100."
    )
    every_minutes: int | None = Field(
        None,
        ge=1,
        le=10_080,
        description="Minutes between checkpoints. When everySteps is set too, a checkpoint is saved at whichever comes "
        "first. Default: 10 when everySteps is not set.",
    )
    keep: int = Field(2, ge=1, le=100, description="Number of newest checkpoints to keep. Default: 2.")
    uri: OutputUri | None = Field(
        None,
        description="Prefix for checkpoints. A change takes effect from the next attempt on. That attempt looks for "
        "checkpoints only there, so it may start from the beginning. Default: output.uri. Example: "
        "s3://scratch/checkpoints.",
    )
