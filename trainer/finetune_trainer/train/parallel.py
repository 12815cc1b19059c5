"""The trainer where several processes train together: each runs its share of a step's passes.

The step is the same in all of them, and so is what follows from its sum. What one of them meets, all of them do: memory
that ran out halves the passes of all, and a process that is told to go takes the others along to the same step.

Dropout's masks follow from the seed, the step and the pass's number. A training therefore goes on exactly after a
checkpoint with as many processes as before; with another number the step is divided otherwise, and the masks differ.
Without dropout only the last bits of the sums do. (NEFTune's noise is each row's own, see train/neftune.py.)
"""

import hashlib
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.gradients import all_reduce_gradients, broadcast_parameters
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.runtime.machine_errors import memory_that_ran_out
from finetune_trainer.train.batch import Passes, Tensors
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.trainer import StepTrainer, StopRequested


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one process has computed of a step.

    Attributes:
        loss: its part of the step's loss.
        lacking: the error when its memory ran out.
        abandoned: whether it was told to go before its last pass.
    """

    loss: float
    lacking: BaseException | None = None
    abandoned: bool = False


class ParallelTrainer(StepTrainer):
    """StepTrainer for one of several processes.

    Attributes:
        process_group: the others.
        alone: whether they have ended.
    """

    def __init__(self, process_group: ProcessGroup, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.process_group = process_group
        self._alike = self.alone = False

    def own_passes(self, step: Tensors) -> Iterator[Tensors]:
        """This process's share of the passes."""
        world = self.process_group.world
        return super().own_passes(step) if self.alone else self.passes.of(step, rank=world.rank, ranks=world.size)

    def summed(self, compute: Callable[[], float]) -> float:
        """The sum over the processes.

        Raises:
            StopRequested: in all of them, when one was told to go.
        """
        if self.alone:
            return super().summed(compute)
        part, abandoned = 0.0, False
        try:
            part = compute()
        except StopRequested:
            abandoned = True
        total, left = self.process_group.all_reduce(
            torch.tensor([part, float(abandoned)], dtype=torch.float64)
        ).tolist()
        if left:
            raise StopRequested
        return float(total)

    def go_on_alone(self) -> None:
        """The others end with the training."""
        self.alone = True

    def agree_on_passes(self) -> None:
        """Takes the smallest division that any process has chosen by its memory.

        Raises:
            TrainerError: PEER_FAILED.
        """
        chosen = [
            Passes.from_text(text) for text in self.process_group.all_gather_text("passes", self.passes.to_text())
        ]
        self.passes = min(chosen, key=lambda passes: (passes.max_tokens, passes.max_rows))

    def _passes_of_step(self, model: Any, step: Tensors) -> torch.Tensor | None:
        """The whole step's loss; None when memory ran out somewhere and all have found smaller passes."""
        trained_here = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self._alike:
            broadcast_parameters(trained_here, self.process_group)
            self._alike = True
        before = RngState.capture()
        share = self._own_passes(model, step)
        # What is drawn outside of the passes, the order of the rows for one, must stay the same in all processes.
        before.restore()
        mine = (share.loss, share.lacking is not None, share.abandoned, self.stop_requested())
        sums = self.process_group.all_reduce(torch.tensor([float(value) for value in mine], dtype=torch.float64))
        loss, lacking, abandoned, stopping = sums.tolist()
        if lacking:
            self._halve(model, step, share.lacking)
            return None
        if abandoned:
            self.process_group.stop_agreed = True
            raise StopRequested
        self.process_group.stop_agreed = stopping > 0
        all_reduce_gradients(trained_here, self.process_group)
        return torch.tensor(loss, dtype=torch.float32, device=step["input_ids"].device)

    def _own_passes(self, model: Any, step: Tensors) -> Share:
        trained = self._trained_tokens(step)
        world = self.process_group.world
        losses: list[torch.Tensor] = []
        try:
            with self.adapter_unchanged():
                for number, part in enumerate(self.own_passes(step)):
                    if self.stop_requested():
                        return Share(loss=0.0, abandoned=True)
                    place = number * world.size + world.rank
                    torch.manual_seed(pass_seed(self.args.seed, self.state.global_step, place))
                    losses.append(self._one_pass(model, part, trained))
            return Share(loss=math.fsum(loss.item() for loss in losses))
        except (RuntimeError, MemoryError) as error:
            if memory_that_ran_out(error) is None:
                raise
            # The traceback holds the tensors of the pass that did not fit.
            traceback.clear_frames(error.__traceback__)
            return Share(loss=0.0, lacking=error)

    def _halve(self, model: Any, step: Tensors, error: BaseException | None) -> None:
        smaller = self.passes.smaller(step, ranks=self.process_group.world.size)
        if smaller is None:
            if error is not None:
                raise error
            raise TrainerError(FailureReason.PEER_FAILED, "memory ran out in another process of this training")
        self._use_smaller(model, smaller)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Process 0 writes; the others know that it has."""
        if self.process_group.is_main_process:
            super()._save_checkpoint(model, trial)
        else:
            self.saved_step = self.state.global_step


def pass_seed(seed: int, step: int, number: int) -> int:
    """A seed of 63 bits for one pass of one step."""
    content = f"pass {seed} {step} {number}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 1
