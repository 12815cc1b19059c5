"""Turns off the random numbers that some base models draw in training.

GPT-2, OPT and Seed-OSS have dropout of their own. Some mixtures multiply a router's input by random numbers (Mixtral
and MiniMax, if their configuration says so) or draw the experts at random (Phi 3.5 MoE). The numbers differ from pass
to pass, so the training would depend on how a step is divided into passes. Dropout of the adapter is `lora.dropout`,
and a router is frozen: its noise has nothing to train.
"""

from typing import Any

import torch


def make_forward_deterministic(model: torch.nn.Module) -> None:
    """Turns off dropout, and keeps every module that knows a jitter in evaluation mode.

    Args:
        model: the base model, before it has an adapter.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            # Rates that a forward pass hands to torch's functions, under many names: attention_dropout, resid_pdrop.
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if any("jitter" in name for name in vars(module)):
            module.register_forward_pre_hook(_leave_training)


def _leave_training(module: torch.nn.Module, _: tuple[Any, ...]) -> None:
    """Changes the mode of the module alone; the experts inside it keep theirs."""
    module.training = False
