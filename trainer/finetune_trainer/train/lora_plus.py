"""LoRA+ (Hayou et al., 2024, arXiv:2402.12354): the adapter's B matrices learn faster than its A matrices.

B begins at zero and A does not, so that with one rate for both, A moves more than it should in wide models.
"""

from typing import Any

import torch


def scale_lora_b_lr(optimizer: torch.optim.Optimizer, model: torch.nn.Module, ratio: float) -> None:
    """Splits the optimizer's groups, so that the B matrices have a learning rate of their own.

    Call it before a schedule is made, which takes each group's rate as its peak.

    Args:
        optimizer: an optimizer that has not made a step.
        model: the model with the adapter.
        ratio: the rate of the B matrices over that of the group they were in.
    """
    quick = {id(weight) for name, weight in model.named_parameters() if ".lora_B." in name}
    for group in list(optimizer.param_groups):
        apart = [weight for weight in group["params"] if id(weight) in quick]
        if apart:
            group["params"] = [weight for weight in group["params"] if id(weight) not in quick]
            more: dict[str, Any] = {**group, "params": apart, "lr": ratio * group["lr"]}
            optimizer.add_param_group(more)
