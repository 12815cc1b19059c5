"""Routes the tokens of a mixture in training as they are routed when the model is served.

Some mixtures multiply a router's input or scores by random numbers in training (Mixtral and MiniMax, if their
configuration says so), or draw the experts at random (Phi 3.5 MoE). That trains the router. Here the router is frozen,
and the noise would make the training depend on how a step is divided into passes.
"""

from typing import Any

import torch


def route_without_jitter(model: torch.nn.Module) -> None:
    """Keeps every module that knows a jitter in evaluation mode, whatever mode the model is in."""
    for module in model.modules():
        if any("jitter" in name for name in vars(module)):
            module.register_forward_pre_hook(_leave_training)


def _leave_training(module: torch.nn.Module, _: tuple[Any, ...]) -> None:
    """Changes the mode of the module alone; the experts inside it keep theirs."""
    module.training = False
