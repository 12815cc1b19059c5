"""The adapter with the best validation score so far, in the memory of the CPU: LoRA is small.

A checkpoint holds it beside the newest one, so a resumed run ends with the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file

_NAME = "best_adapter.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestAdapter:
    """An adapter's weights, and when it was what it is.

    Attributes:
        step: optimizer steps done.
        loss: its validation loss: nats per trained token, or of a pair.
        score: by what it is the best so far; lower is better.
        weights: by PEFT's names, on the CPU.
    """

    step: int
    loss: float
    score: float
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: Any, step: int, loss: float, score: float) -> "BestAdapter":
        """A copy of what a PEFT model has now."""
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        copies = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in weights.items()}
        return cls(step=step, loss=loss, score=score, weights=copies)

    def put_into(self, model: Any) -> None:
        """Gives the PEFT model these weights."""
        set_peft_model_state_dict(model, self.weights)

    def write(self, folder: Path) -> None:
        """Writes it into a checkpoint's folder."""
        about = {"step": str(self.step), "loss": repr(self.loss), "score": repr(self.score)}
        save_file(self.weights, folder / _NAME, about)

    @classmethod
    def read(cls, folder: Path) -> "BestAdapter | None":
        """Reads it from a checkpoint's folder; None when there is none."""
        if not (folder / _NAME).exists():
            return None
        with safe_open(folder / _NAME, framework="pt") as file:
            about = file.metadata()
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        # Older checkpoints have none: the loss was the score.
        score = float(about.get("score", about["loss"]))
        return cls(step=int(about["step"]), loss=float(about["loss"]), score=score, weights=weights)
