"""The training state that transformers does not save; a checkpoint holds it beside transformers' files.

How a step is split into micro-batches belongs to it: another split sums in another order, and the last bits differ.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune_trainer.train.divergence import Divergence
from finetune_trainer.train.micro_batches import MicroBatches

_NAME = "steps.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What is known after a step.

    Attributes:
        step: optimizer steps done.
        micro_batches: how a step is split.
        last_loss: loss of the last step, nats per trained token.
        divergence: what the losses say of the model.
    """

    step: int
    micro_batches: MicroBatches
    last_loss: float
    divergence: Divergence

    def write(self, folder: Path) -> None:
        """Writes it into a checkpoint's folder."""
        values = {
            "step": self.step,
            "passes": self.micro_batches.to_dict(),
            "lastLoss": self.last_loss,
            "divergence": asdict(self.divergence),
        }
        (folder / _NAME).write_text(json.dumps(values) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "StepRecord":
        """Reads it from a checkpoint's folder."""
        values = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        return cls(
            step=values["step"],
            micro_batches=MicroBatches.from_dict(values["passes"]),
            last_loss=values["lastLoss"],
            divergence=Divergence(**values["divergence"]),
        )
