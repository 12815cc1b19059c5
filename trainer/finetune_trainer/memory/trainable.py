"""Bytes of what is trained: the adapter, its gradients and the optimizer's state."""

from collections.abc import Iterator

from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraSpec, LoraVariant
from finetune_trainer.contract.recipe.training import Optimizer
from finetune_trainer.memory.shape import ModelShape, Weight, named

FLOAT32 = 4
_SMALLEST_IN_8_BIT = 4096
"""Numbers of the smallest tensor whose state is kept in 8 bit (bitsandbytes:optim/optimizer.py, min_8bit_size)."""
_BLOCK = 256
"""States that share a float32 constant in 8 bit (bitsandbytes:optim/optimizer.py, blockwise)."""
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
"""Numbers that the optimizer keeps for one that is trained; Adafactor keeps sums of rows and columns instead."""
_IN_8_BIT = (Optimizer.ADAMW_8BIT, Optimizer.PAGED_ADAMW_8BIT, Optimizer.LION_8BIT)


def adapted(shape: ModelShape, spec: LoraSpec) -> list[Weight]:
    """The weights that get an adapter, by PEFT's rule: the whole name of the module or its end."""
    if spec.target_modules == [ALL_LINEAR]:
        return list(shape.linears)
    tables = [weight for weight in shape.others if len(weight.shape) == 2]
    return [weight for weight in (*shape.linears, *tables) if named(weight, spec.target_modules)]


def trained_tensors(shape: ModelShape, spec: LoraSpec) -> list[tuple[int, ...]]:
    """Shapes of all that is trained: A and B of every adapter, DoRA's magnitudes, whole modules."""
    return list(_trained(shape, spec))


def trained_bytes(tensors: list[tuple[int, ...]]) -> int:
    """Bytes of the adapter, which is trained in float32; its gradients take the same."""
    return FLOAT32 * sum(_size(tensor) for tensor in tensors)


def optimizer_bytes(tensors: list[tuple[int, ...]], optimizer: Optimizer) -> int:
    """Bytes of the optimizer's state; a paged one may leave the GPU, and is counted as if it stayed."""
    return sum(_state(tensor, optimizer) for tensor in tensors)


def _trained(shape: ModelShape, spec: LoraSpec) -> Iterator[tuple[int, ...]]:
    for weight in adapted(shape, spec):
        outputs, inputs = weight.shape
        yield (spec.rank, inputs)
        yield (outputs, spec.rank)
        if spec.variant is LoraVariant.DORA:
            yield (outputs,)
    for weight in (*shape.linears, *shape.others):
        if named(weight, spec.modules_to_save or []):
            yield weight.shape


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
