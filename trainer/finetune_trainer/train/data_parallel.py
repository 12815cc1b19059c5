"""Data parallel training: each process runs its share of a step's micro-batches.

The step is the same in all of them, and so is the optimizer step that follows. When memory runs out in one process, all
halve their micro-batches; when one is asked to stop, all stop after the same step.

Dropout's masks follow from the seed, the step and the micro-batch's number. A training therefore goes on exactly after
a checkpoint with as many processes as before; with another number the step is split differently, and the masks differ.
Without dropout only the last bits of the sums do. (NEFTune's noise is each row's own, see train/neftune.py.)
"""

import hashlib
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.gradients import all_reduce_gradients, broadcast_parameters
from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.runtime.machine_errors import out_of_memory_reason
from finetune_trainer.train.micro_batch_trainer import StopRequested
from finetune_trainer.train.micro_batches import MicroBatches, ModelInputs
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.trainer import StepTrainer


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStep:
    """What one process has computed of a step.

    Attributes:
        sums: its part of the step's loss, and of the sums of the measures.
        out_of_memory: the error when its memory ran out.
        stopped: whether it was asked to stop before its last micro-batch.
    """

    sums: Sequence[float] = ()
    out_of_memory: BaseException | None = None
    stopped: bool = False


class DataParallelTrainer(StepTrainer):
    """StepTrainer for one of several processes.

    Attributes:
        process_group: the others.
        others_ended: whether the other processes have ended.
    """

    def __init__(self, process_group: ProcessGroup, *arguments: Any, **named: Any) -> None:
        self.process_group = process_group
        self._parameters_broadcast = self.others_ended = False
        super().__init__(*arguments, **named)
        self._agree_on_micro_batches()

    def local_micro_batches(self, step: ModelInputs) -> Iterator[ModelInputs]:
        """This process's share of the micro-batches."""
        world = self.process_group.world
        return (
            super().local_micro_batches(step)
            if self.others_ended
            else self.micro_batches.split(step, rank=world.rank, ranks=world.size)
        )

    def sum_over_processes(self, compute: Callable[[], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        """The sum over the processes.

        Raises:
            StopRequested: in all of them, when one was asked to stop.
        """
        if self.others_ended:
            return super().sum_over_processes(compute, shape)
        part, stopped = torch.zeros(shape, dtype=torch.float64), False
        try:
            part = compute().cpu()
        except StopRequested:
            stopped = True
        total = self.process_group.all_reduce(torch.cat([part.flatten(), part.new_tensor([stopped])]))
        if total[-1]:
            raise StopRequested
        return total[:-1].view(shape)

    def continue_on_main_process(self) -> None:
        """The others end with the training."""
        self.others_ended = True

    def _agree_on_micro_batches(self) -> None:
        """Takes the smallest split that any process has planned by its memory.

        Raises:
            TrainerError: PEER_FAILED.
        """
        proposed = [
            MicroBatches.from_text(text)
            for text in self.process_group.all_gather_text("passes", self.micro_batches.to_text())
        ]
        self.micro_batches = min(proposed, key=lambda micro_batches: (micro_batches.max_tokens, micro_batches.max_rows))

    def _run_step(self, model: Any, step: ModelInputs) -> torch.Tensor | None:
        """The whole step's loss; None when memory ran out somewhere and all are to repeat the step."""
        trained_here = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self._parameters_broadcast:
            broadcast_parameters(trained_here, self.process_group)
            self._parameters_broadcast = True
        before = RngState.capture()
        share = self._run_local_micro_batches(model, step)
        # What is drawn outside of the micro-batches (the order of the rows) must stay the same in all processes.
        before.restore()
        flags = (share.out_of_memory is not None, share.stopped, self.stop_requested())
        own = share.sums or [0.0] * (1 + len(self.objective.measures))
        reduced = self.process_group.all_reduce(torch.tensor([*flags, *own], dtype=torch.float64))
        out_of_memory, stopped, stopping, *sums = reduced.tolist()
        if out_of_memory:
            self._require_repetition(model, step, share.out_of_memory)
            return None
        if stopped:
            self.process_group.stop_agreed = True
            raise StopRequested
        self.process_group.stop_agreed = stopping > 0
        all_reduce_gradients(trained_here, self.process_group)
        return torch.tensor(sums, dtype=torch.float32, device=step["input_ids"].device)

    def _run_local_micro_batches(self, model: Any, step: ModelInputs) -> LocalStep:
        totals = self.objective.totals(step)
        world = self.process_group.world
        parts: list[torch.Tensor] = []
        try:
            with self.cached_lora_weights():
                for number, micro_batch in enumerate(self.local_micro_batches(step)):
                    if self.stop_requested():
                        return LocalStep(stopped=True)
                    place = number * world.size + world.rank
                    torch.manual_seed(micro_batch_seed(self.args.seed, self.state.global_step, place))
                    parts.append(self._run_micro_batch(model, micro_batch, totals))
            return LocalStep(sums=exact_sums(parts))
        except (RuntimeError, MemoryError) as error:
            if out_of_memory_reason(error) is None:
                raise
            # The traceback holds the tensors of the micro-batch that did not fit.
            traceback.clear_frames(error.__traceback__)
            return LocalStep(out_of_memory=error)

    def _require_repetition(self, model: Any, step: ModelInputs, error: BaseException | None) -> None:
        if not self._prepare_repetition(model, step, ranks=self.process_group.world.size):
            if error is not None:
                raise error
            raise TrainerError(FailureReason.PEER_FAILED, "memory ran out in another process of this training")
        torch.cuda.empty_cache()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Process 0 writes; the others know that it has."""
        if self.process_group.is_main_process:
            super()._save_checkpoint(model, trial)
        else:
            self.saved_step = self.state.global_step


def exact_sums(parts: Sequence[torch.Tensor]) -> list[float]:
    """The sums of the columns of tensors of one shape (columns,), without rounding in between; empty of none."""
    return [math.fsum(column) for column in zip(*(part.tolist() for part in parts), strict=True)]


def micro_batch_seed(seed: int, step: int, number: int) -> int:
    """A seed of 63 bits for one micro-batch of one step."""
    content = f"pass {seed} {step} {number}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 1
