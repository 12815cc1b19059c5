"""NEFTune: noise on the embeddings while training (Jain et al. 2023, arXiv:2310.05914, algorithm 1).

Its size is alpha / sqrt(L d) with the length L of a row in tokens and the embedding's width d. transformers takes for L
the length of the whole forward pass, padding and neighbours in a pack with it; here every row has its own.

A row's noise follows from the seed, the step and the row's own tokens, and from nothing else: it is the same however a
step is divided into passes or over processes, a resumed run draws what the first one would have drawn, and dropout's
random numbers are left alone.
"""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback

from finetune_trainer.contract.recipe import TrainingSpec

Span = tuple[int, int, int]
"""A row of a pass: index in the batch, first token, and the token after its last."""


class Neftune(TrainerCallback):  # type: ignore[misc]
    """Adds the noise from the beginning of a training to its end, and never in evaluation mode."""

    def __init__(self, alpha: float, seed: int) -> None:
        self._alpha = alpha
        self._seed = seed
        self._step = 0
        self._spans: list[Span] = []
        self._handles: list[Any] = []

    @classmethod
    def of(cls, spec: TrainingSpec) -> "Neftune | None":
        """The noise that the recipe asks for; None when it asks for none."""
        alpha = float(spec.neftune_alpha or 0)
        return cls(alpha, spec.seed) if alpha else None

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **rest: Any) -> None:
        """Hooks into the model, whose arguments tell the rows, and into its embeddings."""
        del args, state, control, rest
        self._handles = [
            model.register_forward_pre_hook(self._note_rows, with_kwargs=True),
            model.get_input_embeddings().register_forward_hook(self._add_noise),
        ]

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Notes the step, which the noise is drawn for."""
        del args, control, rest
        self._step = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Takes the hooks out again."""
        del args, state, control, rest
        for handle in self._handles:
            handle.remove()

    def _note_rows(self, module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        del module, arguments
        self._spans = list(row_spans(inputs))

    def _add_noise(self, module: Any, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        if not module.training:
            return None
        ids, noise = arguments[0].cpu(), torch.zeros_like(output)
        generator = torch.Generator(output.device)
        for batch, begin, end in self._spans:
            generator.manual_seed(row_seed(self._seed, self._step, ids[batch, begin:end]))
            size = self._alpha / math.sqrt((end - begin) * output.size(-1))
            noise[batch, begin:end].uniform_(-size, size, generator=generator)
        return output + noise


def row_spans(inputs: dict[str, Any]) -> Iterator[Span]:
    """The rows of a pass, by the model's arguments.

    Rows are padded side by side with `attention_mask`, or packed one after the other with `position_ids`, which begin
    at 0 in each.
    """
    if inputs.get("attention_mask") is not None:
        for batch, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
            yield batch, 0, length
        return
    for batch, positions in enumerate(inputs["position_ids"]):
        begins = (positions == 0).nonzero().flatten().tolist()
        for begin, end in zip(begins, [*begins[1:], len(positions)], strict=True):
            yield batch, begin, end


def row_seed(seed: int, step: int, ids: torch.Tensor) -> int:
    """A seed of 63 bits for one row at one step, by the row's token ids."""
    content = f"{seed} {step} {' '.join(map(str, ids.tolist()))}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 1
