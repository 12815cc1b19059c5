"""Compares the minimum memory of a training with the GPU memory that the job requests."""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.model import DeviceMap, QuantizationType, Sharding
from finetune_trainer.memory.activations import MicroBatchShape
from finetune_trainer.memory.estimate import GIB, MemoryEstimate, TrainingSetup, estimate
from finetune_trainer.memory.shape import TensorShapes, model_shape, tensors_of_llama


def minimum_memory(
    recipe: Recipe, config: Mapping[str, Any], tensors: TensorShapes | None, weights_bytes: int
) -> MemoryEstimate | None:
    """The minimum memory of a training: with one row per micro-batch and gradient checkpointing.

    If the recipe sets microBatchSize or gradientCheckpointing, the recipe's values are used. A row has
    dataset.maxLength tokens, or the model's number of positions if that is less.

    Args:
        recipe: the recipe.
        config: the model's config.json.
        tensors: the shapes of the model's weights; None if only their size is known.
        weights_bytes: bytes of the files of weights.

    Returns:
        The estimate, or None for a model whose sizes are not known.
    """
    known = tensors if tensors is not None else tensors_of_llama(config, weights_bytes)
    shape = model_shape(config, known) if known is not None else None
    if shape is None:
        return None
    training = recipe.training
    row = min(recipe.dataset.max_length, shape.positions or recipe.dataset.max_length)
    # The two answers of a pair go through the model together.
    rows = (training.micro_batch_size or 1) * (2 if recipe.method is Method.DPO else 1)
    micro_batch = MicroBatchShape(
        tokens=rows * row,
        span=row if recipe.dataset.packing is Switch.DISABLED else rows * row,
        gradient_checkpointing=training.gradient_checkpointing is not Switch.DISABLED,
    )
    return estimate(shape, TrainingSetup.of(recipe, cuda=recipe.machine.gpus != 0), micro_batch)


def require_gpu_memory(recipe: Recipe, minimum: MemoryEstimate) -> str:
    """Requires that the minimum memory fits the requested GPUs, if their memory is known.

    Returns:
        A sentence for the preflight report.

    Raises:
        TrainerError: GPU_TOO_SMALL, it does not fit; the message has the parts of the estimate and what to change.
    """
    machine = recipe.machine
    if machine.gpu_memory_bytes is None:
        device = "the process" if machine.gpus == 0 else "the GPU"
        return f"about {_gib(minimum.total)} of {device}'s memory at least ({minimum})"
    devices = 1 if recipe.model.device_map is DeviceMap.NONE else machine.gpus or 1
    available = devices * machine.gpu_memory_bytes
    if minimum.total > available:
        raise TrainerError(
            FailureReason.GPU_TOO_SMALL,
            f"the training takes about {_gib(minimum.total)} of GPU memory at least ({minimum}), and the job asks for "
            f"{_gib(available)}; {', '.join(_remedies(recipe))}",
        )
    return f"about {_gib(minimum.total)} of the GPU's {_gib(available)} at least ({minimum})"


def _remedies(recipe: Recipe) -> list[str]:
    """Changes to the recipe with which the training may fit, those with the largest effect first."""
    remedies = [
        "ask for a GPU with more memory (resources.gpuMemory)",
        f"or lower dataset.maxLength ({recipe.dataset.max_length})",
    ]
    if recipe.model.quantization.type is not QuantizationType.NF4:
        remedies.append(f"set model.quantization.type to nf4 (now {recipe.model.quantization.type})")
    if recipe.model.device_map is DeviceMap.NONE and recipe.model.sharding is Sharding.NONE:
        remedies.append("divide the base model over several GPUs (model.sharding: full with resources.gpus)")
    if recipe.model.sharding is Sharding.FULL:
        remedies.append(f"divide the base model over more GPUs than {recipe.machine.processes} (resources.gpus, nodes)")
    if recipe.training.gradient_checkpointing is Switch.DISABLED:
        remedies.append("leave training.gradientCheckpointing at auto")
    if (micro := recipe.training.micro_batch_size or 1) > 1:
        remedies.append(f"leave out training.microBatchSize ({micro})")
    if recipe.lora.rank > 16:
        remedies.append(f"lower lora.rank ({recipe.lora.rank})")
    return remedies


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
