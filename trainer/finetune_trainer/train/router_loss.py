"""The auxiliary loss that keeps the experts of a mixture equally busy, computed row by row.

The loss is that of Switch Transformers (Fedus et al., 2021, section 2.2) as transformers' mixtures have it: the number
of experts, times the sum over the experts of (share of the tokens sent to it) * (mean probability of it), over the
tokens of all layers. It is no sum over tokens: computed over a micro-batch, it would depend on how the step is divided
into micro-batches. Here it is computed over each row, and each trained token of the row counts with it as with its own
loss. So packing, padding and the number of micro-batches do not matter.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetune_trainer.train.lm_head import backbone
from finetune_trainer.train.micro_batches import IGNORED, ModelInputs

_CHOSEN = ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts", "num_experts_per_token")
"""Names in configurations for the number of experts of a token."""


class RouterLoss:
    """The auxiliary loss of one model.

    Args:
        model: the causal language model, below PEFT.
        coefficient: how much the loss counts.
        chosen: experts of a token.
    """

    def __init__(self, model: Any, coefficient: float, chosen: int) -> None:
        self._model, self._coefficient, self._chosen = model, coefficient, chosen

    @classmethod
    def of(cls, model: Any) -> "RouterLoss | None":
        """The auxiliary loss that the model's own code would add with router logits; None if it would add none.

        Call it before the trainer is constructed: TRL's constructor sets the coefficient in the model's configuration
        to its own.
        """
        config = model.config.get_text_config()
        coefficient = getattr(config, "router_aux_loss_coef", None) or 0.0
        chosen = next((value for name in _CHOSEN if isinstance(value := getattr(config, name, None), int)), 0)
        has_loss = hasattr(sys.modules[type(model).__module__], "load_balancing_loss_func")
        return cls(model, float(coefficient), chosen) if has_loss and coefficient and chosen else None

    @contextmanager
    def recorded(self) -> Iterator[list[torch.Tensor]]:
        """A context whose list has the routers' logits after a forward pass: of each layer, (tokens, experts)."""
        logits: list[torch.Tensor] = []

        def ask(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return arguments, {**named, "output_router_logits": True}

        def keep(_: Any, __: Any, output: Any) -> None:
            logits[:] = [layer for layer in getattr(output, "router_logits", None) or () if layer is not None]

        layers = backbone(self._model)
        hooks = [layers.register_forward_pre_hook(ask, with_kwargs=True), layers.register_forward_hook(keep)]
        try:
            yield logits
        finally:
            for hook in hooks:
                hook.remove()

    def sum_over_trained_tokens(self, logits: list[torch.Tensor], inputs: ModelInputs) -> torch.Tensor | float:
        """The loss of a micro-batch's rows, each times its number of trained tokens, times the coefficient.

        Args:
            logits: what `recorded` has kept.
            inputs: the micro-batch.
        """
        if not logits:
            return 0.0
        place = logits[0].device
        rows, kept = rows_of_tokens(inputs)
        rows, kept = rows.to(place), kept.to(place)
        count = int(rows.max()) + 1
        trained = _summed((inputs["labels"].flatten().to(place) != IGNORED)[kept, None].float(), rows, count)[:, 0]
        probabilities, shares = (torch.zeros(count, logits[0].shape[-1], device=place) for _ in range(2))
        for layer in logits:
            own = layer.to(place).float()[kept].softmax(dim=-1)
            sent = torch.zeros_like(own).scatter_(1, own.topk(self._chosen, dim=-1).indices, 1.0)
            probabilities = probabilities + _summed(own, rows, count)
            shares = shares + _summed(sent, rows, count)
        tokens = len(logits) * torch.bincount(rows, minlength=count)[:, None]
        losses = logits[0].shape[-1] * ((shares / tokens) * (probabilities / tokens)).sum(dim=-1)
        total: torch.Tensor = self._coefficient * (losses * trained).sum()
        return total


def rows_of_tokens(inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """The row of each token of a micro-batch, without padding, and the indices of these tokens in the flat batch."""
    if "position_ids" in inputs:
        rows = (inputs["position_ids"].flatten() == 0).cumsum(0) - 1
        return rows, torch.arange(len(rows), device=rows.device)
    mask = inputs["attention_mask"].bool()
    rows = torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)
    return rows[mask], mask.flatten().nonzero()[:, 0]


def _summed(values: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """The sums over the tokens of each row, shape (rows, columns)."""
    return torch.zeros(count, values.shape[1], device=values.device).index_add_(0, rows, values)
