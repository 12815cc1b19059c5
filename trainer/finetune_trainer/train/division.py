"""How the steps of this run are divided, by the device at hand; the rule is memory/choice.py's."""

import logging
from typing import Any

import torch

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import DeviceMap
from finetune_trainer.memory.activations import Masking
from finetune_trainer.memory.choice import Choice, choose
from finetune_trainer.memory.estimate import GIB, TrainingSetup
from finetune_trainer.memory.process import memory_limit_bytes
from finetune_trainer.model.attention import is_eager, is_varlen
from finetune_trainer.model.sizes import loaded_shape
from finetune_trainer.runtime.log import event


def divide_steps(
    recipe: Recipe, model: Any, dtype: torch.dtype, *, packed: bool, longest: int, free: int | None
) -> Choice:
    """Chooses and logs the division.

    Args:
        recipe: the recipe.
        model: the base model, on its device, before PEFT has changed it.
        dtype: number type of the products.
        packed: whether rows are packed.
        longest: tokens of the longest row.
        free: what the training may take of the device, the model included; see `free_bytes`.
    """
    shape, cuda = loaded_shape(model), torch.cuda.is_available()
    masking = Masking.EAGER if is_eager(model) else Masking.DENSE
    if packed and is_varlen(model):
        masking = Masking.VARLEN
    setup = TrainingSetup.of(recipe, cuda=cuda, width=dtype.itemsize, masking=masking)
    found = choose(recipe, shape, setup, packed=packed, longest=longest, free=free)
    division, memory = found.division, found.memory
    event(
        "memory",
        level=logging.WARNING if found.fits is False else logging.INFO,
        message="may not be enough; trying the smallest passes" if found.fits is False else None,
        pass_tokens=division.pass_tokens,
        gradient_checkpointing=division.gradient_checkpointing,
        estimate_gib=round(memory.total / GIB, 2) if memory else None,
        free_gib=round(free / GIB, 2) if free is not None else None,
        parts=str(memory) if memory else None,
    )
    return found


def free_bytes(device_map: DeviceMap, *, processes: int = 1) -> int | None:
    """What the training may take of the device: the GPU's memory but what others hold of it, or the container's.

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
