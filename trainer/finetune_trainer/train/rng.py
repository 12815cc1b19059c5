"""The state of every random generator that a training draws from."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class RngState:
    """Where the generators stood at one moment: Python's, numpy's, torch's, and those of all GPUs."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: list[torch.Tensor]

    @classmethod
    def capture(cls) -> "RngState":
        """The state now."""
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),
            cpu=torch.random.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        )

    def restore(self) -> None:
        """Goes back to it: what is drawn next is what was drawn next then."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)
