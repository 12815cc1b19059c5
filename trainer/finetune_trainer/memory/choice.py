"""The choices that follow from the memory: tokens of a pass, and whether activations are computed again.

They change the speed and, in the last bits of a sum, the result; never the step. They depend on nothing but recipe,
model and memory, so that every attempt on such a machine chooses alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.lora import LoraVariant
from finetune_trainer.contract.recipe.model import QuantizationType
from finetune_trainer.memory.activations import MicroBatchShape
from finetune_trainer.memory.estimate import MemoryEstimate, TrainingSetup, estimate
from finetune_trainer.memory.shape import ModelShape
from finetune_trainer.memory.trainable import FLOAT32

GPU_TOKENS = (16384, 12288, 8192, 6144, 4096, 3072, 2048, 1024, 512)
"""Tokens of a pass on a GPU, the first that fit. Unpacking 4-bit weights is paid per pass: at 16k tokens it is 2 % of
the products' time, at 8k 5 %, at 4k 9 %, at 512 tokens 74 %."""
CPU_TOKENS = (512, 256, 128)
"""Tokens of a pass on a CPU: unpacking is a few per cent there at 512 already. Fewer only where memory forces it, since
another division sums in another order and an exact resume needs the same one."""
_ENOUGH_TOKENS = 4096
"""Computing activations again costs a third of the time; more than that costs only unpacking below this size."""
_FREE_SHARE = {True: 0.92, False: 0.85}
"""Share of the free memory that may be planned with, on a GPU and on a CPU: estimates err, and rows differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How steps are run.

    Attributes:
        pass_tokens: most tokens of a forward pass; a longer row goes alone.
        max_rows: most rows of a forward pass.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        keep_dequantized: whether 4-bit weights stay dequantized from a layer's forward to its backward pass, in float32
            on a CPU. It changes the speed only.
    """

    pass_tokens: int
    max_rows: int
    gradient_checkpointing: bool
    keep_dequantized: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A division and what it takes.

    Attributes:
        division: the division.
        memory: the estimate; None for a model whose sizes are not known.
        fits: whether it fits with a margin; None where the memory or the estimate is not known.
    """

    division: Division
    memory: MemoryEstimate | None
    fits: bool | None


def choose(
    recipe: Recipe, shape: ModelShape | None, setup: TrainingSetup, *, packed: bool, longest: int, free: int | None
) -> Choice:
    """The fastest division that fits: without computing activations again if that leaves room for large passes.

    Args:
        recipe: the recipe; what it sets is taken as it is.
        shape: the model's sizes.
        setup: what else the memory depends on.
        packed: rows one after the other; otherwise side by side with padding.
        longest: tokens of the longest row.
        free: bytes that the training may take, the model included; None when that is not known.
    """
    divisions = list(_candidates(recipe, setup, longest=longest))
    if shape is None:
        return Choice(division=_cautious(divisions, cuda=setup.precision.cuda), memory=None, fits=None)

    def needed(division: Division) -> MemoryEstimate:
        return estimate(shape, setup, largest_pass(division, packed=packed, longest=longest))

    if free is None:
        division = _cautious(divisions, cuda=setup.precision.cuda)
        return Choice(division=division, memory=needed(division), fits=None)
    allowed = _FREE_SHARE[setup.precision.cuda] * free
    for division in divisions:
        if (memory := needed(division)).total <= allowed:
            return Choice(division=division, memory=memory, fits=True)
    return Choice(division=divisions[-1], memory=needed(divisions[-1]), fits=False)


def largest_pass(division: Division, *, packed: bool, longest: int) -> MicroBatchShape:
    """The largest pass that a division can make."""
    tokens = max(longest, min(division.pass_tokens, division.max_rows * longest))
    span = tokens if packed else longest
    return MicroBatchShape(
        tokens=tokens,
        span=span,
        gradient_checkpointing=division.gradient_checkpointing,
        keep_dequantized=division.keep_dequantized,
    )


def _candidates(recipe: Recipe, setup: TrainingSetup, *, longest: int) -> Iterator[Division]:
    """All divisions that the recipe allows, the fastest first."""
    training, cuda = recipe.training, setup.precision.cuda
    keep_dequantized = (True, False) if not cuda and _may_be_folded(setup) else (False,)
    micro = training.micro_batch_size
    sizes: tuple[int, ...] = GPU_TOKENS if cuda else CPU_TOKENS
    if micro is not None:
        sizes = (micro * recipe.dataset.max_length,)
    rows = micro or training.batch_size
    match training.gradient_checkpointing:
        case Switch.ENABLED:
            ways = [(True, sizes)]
        case Switch.DISABLED:
            ways = [(False, sizes)]
        case Switch.AUTO:
            # More than a step has, or than the longest row needs, is enough too.
            enough = min(_ENOUGH_TOKENS, max(longest, rows * longest)) if cuda else sizes[0]
            ways = [(False, tuple(size for size in sizes if size >= enough) or sizes[-1:]), (True, sizes)]
    for gradient_checkpointing, chosen in ways:
        for size in chosen:
            for kept in keep_dequantized:
                yield Division(
                    pass_tokens=size,
                    max_rows=rows,
                    gradient_checkpointing=gradient_checkpointing,
                    keep_dequantized=kept,
                )


def _may_be_folded(setup: TrainingSetup) -> bool:
    """Whether the adapter is folded into 4-bit weights (model/folded.py)."""
    four_bit = setup.quantization.type in (QuantizationType.NF4, QuantizationType.FP4)
    plain = setup.lora.variant is not LoraVariant.DORA and float(setup.lora.dropout) == 0
    return four_bit and plain and setup.precision.width == FLOAT32


def _cautious(divisions: list[Division], *, cuda: bool) -> Division:
    """What is taken when nothing is known: on a GPU activations are computed again and passes are of middle size."""
    if not cuda:
        return next(division for division in divisions if not division.keep_dequantized)
    again = [division for division in divisions if division.gradient_checkpointing] or divisions
    return next((division for division in again if division.pass_tokens <= 8192), again[0])
