"""The plan of a step on the device at hand; the rule is in memory/step_plan.py."""

import logging
from typing import Any

import torch

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import DeviceMap
from finetune_trainer.memory.activations import Masking
from finetune_trainer.memory.estimate import GIB, TrainingSetup
from finetune_trainer.memory.process import memory_limit_bytes
from finetune_trainer.memory.step_plan import StepPlan, plan_step
from finetune_trainer.model.attention import has_varlen_kernel, is_eager, is_varlen
from finetune_trainer.model.fused_norms import has_fused_norms
from finetune_trainer.model.sizes import loaded_shape
from finetune_trainer.runtime.log import event
from finetune_trainer.train.isolation import Arrangement


def plan_step_on_device(
    recipe: Recipe, model: Any, dtype: torch.dtype, *, arrangement: Arrangement, longest: int, free_bytes: int | None
) -> StepPlan:
    """Plans the steps for the device at hand, and logs the plan.

    Args:
        recipe: the recipe.
        model: the base model, on its device, before PEFT has changed it.
        dtype: number type of the products.
        arrangement: how rows share a micro-batch.
        longest: tokens of the longest row.
        free_bytes: what the training may take of the device, the model included; see `free_device_bytes`.
    """
    shape, cuda = loaded_shape(model), torch.cuda.is_available()
    masking = Masking.EAGER if is_eager(model) else Masking.DENSE
    packed = arrangement is Arrangement.PACKED
    if packed and is_varlen(model):
        kernel = not cuda or has_varlen_kernel(model.device, dtype)
        masking = Masking.VARLEN if kernel else Masking.ROWS
    # Only a GPU has a kernel for them.
    fused_norms = cuda and has_fused_norms(model)
    setup = TrainingSetup.of(recipe, cuda=cuda, width=dtype.itemsize, masking=masking, fused_norms=fused_norms)
    most = 1 if arrangement is Arrangement.ALONE else None
    plan = plan_step(recipe, shape, setup, packed=packed, most_rows=most, longest=longest, free_bytes=free_bytes)
    memory = plan.memory
    event(
        "memory",
        level=logging.WARNING if plan.fits is False else logging.INFO,
        message="may not be enough; trying the smallest passes" if plan.fits is False else None,
        pass_tokens=plan.micro_batch_tokens,
        rows=arrangement,
        gradient_checkpointing=plan.gradient_checkpointing,
        estimate_gib=round(memory.total / GIB, 2) if memory else None,
        free_gib=round(free_bytes / GIB, 2) if free_bytes is not None else None,
        parts=str(memory) if memory else None,
    )
    return plan


def free_device_bytes(device_map: DeviceMap, *, processes: int = 1) -> int | None:
    """Memory that the training may take: the GPU's without what other processes hold, or the container's.

    Args:
        device_map: layers that are spread have the memory of all GPUs; else the process has one.
        processes: how many train in this container; without GPUs they share its memory.
    """
    if not torch.cuda.is_available():
        limit = memory_limit_bytes()
        return None if limit is None else limit // processes
    every = range(torch.cuda.device_count())
    mine = [torch.cuda.current_device()] if device_map is DeviceMap.NONE else every
    return sum(int(torch.cuda.mem_get_info(gpu)[0]) + torch.cuda.memory_reserved(gpu) for gpu in mine)
