"""The plan of a step in the available memory: tokens of a micro-batch, and whether to use gradient checkpointing.

A plan changes the speed, and the result only in the last bits of a sum. It does not change which rows are in a step. It
depends only on recipe, model and memory, so every attempt on an equal machine has the same plan.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.lora import LoraVariant
from finetune_trainer.contract.recipe.model import QuantizationType
from finetune_trainer.memory.activations import MicroBatchShape
from finetune_trainer.memory.estimate import MemoryEstimate, TrainingSetup, estimate
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import FLOAT32

GPU_MICRO_BATCH_TOKENS = (16384, 12288, 8192, 6144, 4096, 3072, 2048, 1024, 512)
"""Tokens of a micro-batch on a GPU; the first size that fits is used. Weights are dequantized once per micro-batch. At
16k tokens dequantizing takes 2 % of the time of the matrix products, at 8k 5 %, at 4k 9 %, at 512 tokens 74 %."""
CPU_MICRO_BATCH_TOKENS = (512, 256, 128)
"""Tokens of a micro-batch on a CPU; the first size that fits is used. At 512 tokens dequantizing takes a few per cent
of the time. Too little memory is the only reason for a smaller size: another size sums in another order, and an exact
resume needs the same order."""
_ENOUGH_TOKENS = 4096
"""Tokens of a micro-batch from which on gradient checkpointing costs more than dequantizing. It costs a third of the
time; dequantizing costs more than that only for smaller micro-batches."""
_FREE_SHARE = {True: 0.92, False: 0.85}
"""Share of the free memory that a plan may use, by whether it is a GPU's. The rest is for errors of the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """How the steps of a training run on this machine.

    Attributes:
        micro_batch_tokens: largest number of tokens in a micro-batch. A longer row has a micro-batch of its own.
        max_rows: largest number of rows in a micro-batch.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        keep_dequantized: whether 4-bit weights stay dequantized from a layer's forward to its backward pass, in float32
            on a CPU. It changes only the speed.
        memory: the estimate of the memory; None for a model whose sizes are not known.
        fits: whether the plan fits the memory with a margin; None if the memory or the estimate is not known.
    """

    micro_batch_tokens: int
    max_rows: int
    gradient_checkpointing: bool
    keep_dequantized: bool = False
    memory: MemoryEstimate | None = None
    fits: bool | None = None


def plan_step(
    recipe: Recipe,
    shape: ModelShape | None,
    setup: TrainingSetup,
    *,
    packed: bool,
    longest: int,
    free_bytes: int | None,
    most_rows: int | None = None,
) -> StepPlan:
    """The fastest plan that fits. It has no gradient checkpointing if large micro-batches fit without.

    If no plan fits, the result is the last one, which needs the least memory, with `fits` false.

    Args:
        recipe: the recipe. Its own settings are not changed.
        shape: the model's sizes; None if they are not known.
        setup: the other settings on which the memory depends.
        packed: whether rows are packed; otherwise they are padded.
        longest: tokens of the longest row.
        free_bytes: bytes that the training may use, including the model; None if not known.
        most_rows: most rows of a micro-batch; None for no limit but the recipe's.
    """
    plans = list(_candidates(recipe, setup, longest=longest, most_rows=most_rows))
    if shape is None:
        return _cautious_plan(plans, cuda=setup.precision.cuda)

    def with_estimate(plan: StepPlan) -> tuple[StepPlan, int]:
        memory = estimate(shape, setup, largest_micro_batch(plan, packed=packed, longest=longest))
        return replace(plan, memory=memory), memory.total

    if free_bytes is None:
        plan, _ = with_estimate(_cautious_plan(plans, cuda=setup.precision.cuda))
        return plan
    allowed = _FREE_SHARE[setup.precision.cuda] * free_bytes
    for candidate in plans:
        plan, needed = with_estimate(candidate)
        if needed <= allowed:
            return replace(plan, fits=True)
    return replace(plan, fits=False)


def largest_micro_batch(plan: StepPlan, *, packed: bool, longest: int) -> MicroBatchShape:
    """The largest micro-batch of a plan.

    Args:
        plan: the plan.
        packed: whether rows are packed; otherwise they are padded.
        longest: tokens of the longest row.
    """
    tokens = max(longest, min(plan.micro_batch_tokens, plan.max_rows * longest))
    span = tokens if packed else longest
    return MicroBatchShape(
        tokens=tokens,
        span=span,
        gradient_checkpointing=plan.gradient_checkpointing,
        keep_dequantized=plan.keep_dequantized,
    )


def _candidates(recipe: Recipe, setup: TrainingSetup, *, longest: int, most_rows: int | None) -> Iterator[StepPlan]:
    """All plans that the recipe allows, the fastest first."""
    training, cuda = recipe.training, setup.precision.cuda
    keep_options = (True, False) if not cuda and _can_fold_lora(setup) else (False,)
    micro_batch_size = training.micro_batch_size
    sizes: tuple[int, ...] = GPU_MICRO_BATCH_TOKENS if cuda else CPU_MICRO_BATCH_TOKENS
    if micro_batch_size is not None:
        sequences = 2 if recipe.method is Method.DPO else 1
        sizes = (micro_batch_size * sequences * recipe.dataset.max_length,)
    rows = min(micro_batch_size or training.batch_size, most_rows or training.batch_size)
    match training.gradient_checkpointing:
        case Switch.ENABLED:
            modes = [(True, sizes)]
        case Switch.DISABLED:
            modes = [(False, sizes)]
        case Switch.AUTO:
            # A step may have fewer tokens than that. Then it is enough that the whole step fits into a micro-batch.
            enough = min(_ENOUGH_TOKENS, max(longest, rows * longest)) if cuda else sizes[0]
            modes = [(False, tuple(size for size in sizes if size >= enough) or sizes[-1:]), (True, sizes)]
    for gradient_checkpointing, chosen in modes:
        for size in chosen:
            for keep_dequantized in keep_options:
                yield StepPlan(
                    micro_batch_tokens=size,
                    max_rows=rows,
                    gradient_checkpointing=gradient_checkpointing,
                    keep_dequantized=keep_dequantized,
                )


def _can_fold_lora(setup: TrainingSetup) -> bool:
    """Whether the adapter is folded into 4-bit weights (model/folded_lora.py)."""
    four_bit = setup.quantization.type in (QuantizationType.NF4, QuantizationType.FP4)
    plain = setup.lora.variant is not LoraVariant.DORA and float(setup.lora.dropout) == 0
    return four_bit and plain and setup.precision.width == FLOAT32


def _cautious_plan(plans: list[StepPlan], *, cuda: bool) -> StepPlan:
    """The plan if the memory or the sizes are not known: on a GPU, gradient checkpointing and medium micro-batches."""
    if not cuda:
        return next(plan for plan in plans if not plan.keep_dequantized)
    again = [plan for plan in plans if plan.gradient_checkpointing] or plans
    return next((plan for plan in again if plan.micro_batch_tokens <= 8192), again[0])
