"""Whether a training can fit the GPU at all: the smallest way of running it, against the memory that the job names."""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.model import DeviceMap, QuantizationType, Sharding
from finetune_trainer.memory.activations import Pass
from finetune_trainer.memory.estimate import GIB, MemoryEstimate, Plan, estimate
from finetune_trainer.memory.shape import Tensors, model_shape, tensors_of_llama


def least_memory(
    recipe: Recipe, config: Mapping[str, Any], tensors: Tensors | None, weights_bytes: int
) -> MemoryEstimate | None:
    """The least memory that the recipe can be trained in: one row a pass, activations computed again.

    What the recipe sets (microBatchSize, gradientCheckpointing) is taken as it is. A row has dataset.maxLength tokens,
    or as many as the model has positions.

    Args:
        recipe: the recipe.
        config: the model's config.json.
        tensors: the shapes of its weights; None where only their size is known.
        weights_bytes: bytes of its weights' files.

    Returns:
        The estimate, or None for a model whose sizes are not known.
    """
    known = tensors if tensors is not None else tensors_of_llama(config, weights_bytes)
    shape = model_shape(config, known) if known is not None else None
    if shape is None:
        return None
    training = recipe.training
    row = min(recipe.dataset.max_length, shape.positions or recipe.dataset.max_length)
    rows = training.micro_batch_size or 1
    one = Pass(
        tokens=rows * row,
        span=row if recipe.dataset.packing is Switch.DISABLED else rows * row,
        checkpointing=training.gradient_checkpointing is not Switch.DISABLED,
    )
    return estimate(shape, Plan.of(recipe, cuda=recipe.machine.gpus != 0), one)


def require_room(recipe: Recipe, least: MemoryEstimate) -> str:
    """Holds the least memory against the GPU's, where that is known; returns what there is to say.

    Raises:
        TrainerError: GPU_TOO_SMALL; the message has the parts and what to change.
    """
    machine = recipe.machine
    if machine.gpu_memory_bytes is None:
        device = "the process" if machine.gpus == 0 else "the GPU"
        return f"about {_gib(least.total)} of {device}'s memory at least ({least})"
    devices = 1 if recipe.model.device_map is DeviceMap.NONE else machine.gpus or 1
    room = devices * machine.gpu_memory_bytes
    if least.total > room:
        raise TrainerError(
            FailureReason.GPU_TOO_SMALL,
            f"the training takes about {_gib(least.total)} of GPU memory at least ({least}), and the job asks for "
            f"{_gib(room)}; {', '.join(_remedies(recipe))}",
        )
    return f"about {_gib(least.total)} of the GPU's {_gib(room)} at least ({least})"


def _remedies(recipe: Recipe) -> list[str]:
    """What would lower the estimate, the largest first."""
    found = [
        "ask for a GPU with more memory (resources.gpuMemory)",
        f"or lower dataset.maxLength ({recipe.dataset.max_length})",
    ]
    if recipe.model.quantization.type is not QuantizationType.NF4:
        found.append(f"set model.quantization.type to nf4 (now {recipe.model.quantization.type})")
    if recipe.model.device_map is DeviceMap.NONE and recipe.model.sharding is Sharding.NONE:
        found.append("divide the base model over several GPUs (model.sharding: full with resources.gpus)")
    if recipe.model.sharding is Sharding.FULL:
        found.append(f"divide the base model over more GPUs than {recipe.machine.processes} (resources.gpus, nodes)")
    if recipe.training.gradient_checkpointing is Switch.DISABLED:
        found.append("leave training.gradientCheckpointing at auto")
    if (micro := recipe.training.micro_batch_size or 1) > 1:
        found.append(f"leave out training.microBatchSize ({micro})")
    if recipe.lora.rank > 16:
        found.append(f"lower lora.rank ({recipe.lora.rank})")
    return found


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
