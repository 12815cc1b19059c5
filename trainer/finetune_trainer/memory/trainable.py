"""The memory of the trained weights: the adapter, its gradients and the optimizer's state."""

from collections.abc import Iterator

from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant
from finetune_trainer.contract.recipe.training import Optimizer
from finetune_trainer.memory.shape import ModelShape, Weight, named

FLOAT32 = 4
_SMALLEST_IN_8_BIT = 4096
"""Elements of the smallest tensor with an 8-bit optimizer state (bitsandbytes:optim/optimizer.py, min_8bit_size)."""
_BLOCK = 256
"""Elements of an 8-bit state that share a float32 scale (bitsandbytes:optim/optimizer.py, blockwise)."""
_UP = ("up_proj", "w3")
"""Names of an expert's second input layer in files."""
_STATES = {
    Optimizer.ADAMW_TORCH: 2,
    Optimizer.ADAMW_TORCH_FUSED: 2,
    Optimizer.ADAMW_8BIT: 2,
    Optimizer.PAGED_ADAMW_32BIT: 2,
    Optimizer.PAGED_ADAMW_8BIT: 2,
    Optimizer.LION_32BIT: 1,
    Optimizer.LION_8BIT: 1,
    Optimizer.SGD: 0,
}
"""Numbers in the optimizer's state for each trained number. Adafactor keeps sums of rows and columns instead."""
_IN_8_BIT = (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.LION_8BIT)


def adapted(shape: ModelShape, spec: LoraSpec) -> list[Weight]:
    """The weights that get an adapter. By PEFT's rule a name in targetModules matches a module's name or its end."""
    if spec.target_modules == [ALL_LINEAR]:
        return list(shape.linears)
    tables = [weight for weight in shape.others if len(weight.shape) == 2]
    return [weight for weight in (*shape.linears, *tables) if named(weight, spec.target_modules)]


def adapts_experts(spec: LoraSpec) -> bool:
    """Whether the experts of a mixture get an adapter. PEFT has no dropout and no DoRA for them."""
    return spec.target_modules == [ALL_LINEAR] and spec.variant is not LoraVariant.DORA and float(spec.dropout) == 0


def trained_tensors(shape: ModelShape, spec: LoraSpec) -> list[tuple[int, ...]]:
    """Shapes of all trained tensors: A and B of every adapter, DoRA's magnitudes, and `lora.modulesToSave`."""
    return list(_trained(shape, spec))


def trained_bytes(tensors: list[tuple[int, ...]]) -> int:
    """Bytes of the trained tensors in float32. Their gradients have the same size."""
    return FLOAT32 * sum(_size(tensor) for tensor in tensors)


def optimizer_bytes(tensors: list[tuple[int, ...]], optimizer: Optimizer) -> int:
    """Bytes of the optimizer's state. A paged optimizer's state is counted in full, though it may leave the GPU."""
    return sum(_state(tensor, optimizer) for tensor in tensors)


def _trained(shape: ModelShape, spec: LoraSpec) -> Iterator[tuple[int, ...]]:
    for weight in adapted(shape, spec):
        outputs, inputs = weight.shape
        yield (spec.rank, inputs)
        yield (outputs, spec.rank)
        if spec.variant is LoraVariant.DORA:
            yield (outputs,)
    if adapts_experts(spec):
        for weight in shape.experts:
            yield from _of_expert(weight, spec.rank)
    for weight in (*shape.linears, *shape.others):
        if named(weight, spec.modules_to_save or []):
            yield weight.shape


def _of_expert(weight: Weight, rank: int) -> Iterator[tuple[int, ...]]:
    """A and B of an expert's weight, or of the weights of all experts of a layer.

    PEFT adapts gate and up as the one weight that they are in memory: they share an A.
    """
    *experts, outputs, inputs = weight.shape
    ranks = rank * (experts[0] if experts else 1)
    if weight.module.rpartition(".")[2] not in _UP:
        yield (ranks, inputs)
    yield (outputs, ranks)


def _state(tensor: tuple[int, ...], optimizer: Optimizer) -> int:
    size = _size(tensor)
    if optimizer is Optimizer.ADAFACTOR:
        return FLOAT32 * (sum(tensor) if len(tensor) > 1 else size)
    states = _STATES[optimizer]
    if optimizer in _IN_8_BIT and size >= _SMALLEST_IN_8_BIT:
        return states * (size + FLOAT32 * -(-size // _BLOCK))
    return FLOAT32 * states * size


def _size(tensor: tuple[int, ...]) -> int:
    size = 1
    for side in tensor:
        size *= side
    return size
