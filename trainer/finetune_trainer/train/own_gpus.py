"""Requires that a process can use its GPUs, before it downloads anything or other processes wait for it."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import DeviceMap
from finetune_trainer.runtime.gpus import require_gpus
from finetune_trainer.train.context import Context


def require_own_gpus(recipe: Recipe, context: Context) -> None:
    """Requires that this process can use its GPUs: one, or all of the pod with a model.deviceMap.

    Raises:
        TrainerError: GPU_UNAVAILABLE or GPU_NOT_SUPPORTED.
    """
    asked = recipe.machine.gpus
    count = 1 if recipe.model.device_map is DeviceMap.NONE else asked or 0
    require_gpus(asked, count, context.machine, allow_cpu=context.allow_cpu)
