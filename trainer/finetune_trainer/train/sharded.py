"""The trainer where the base model's weights are divided over the processes (distributed/sharding.py).

Every pass of one process needs the others' parts, so all go through the passes of a step round by round: who has no
pass in a round helps with those of the others. Before each round they agree to go on, so what one of them meets (it was
told to go, its memory ran out) ends the step for all at once.
"""

import math
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.distributed.sharding import Sharding
from finetune_trainer.runtime.machine_errors import memory_that_ran_out
from finetune_trainer.train.batch import Tensors
from finetune_trainer.train.parallel import ParallelTrainer, Share, pass_seed
from finetune_trainer.train.trainer import StopRequested


class ShardedTrainer(ParallelTrainer):
    """ParallelTrainer for one of several processes that each hold a part of the base model.

    Attributes:
        sharding: how they give each other what they need.
    """

    def __init__(self, sharding: Sharding, process_group: ProcessGroup, *arguments: Any, **named: Any) -> None:
        super().__init__(process_group, *arguments, **named)
        self.sharding = sharding

    def own_passes(self, step: Tensors) -> Iterator[Tensors]:
        """This process's share of the passes of a measurement; it helps with those that the others have more."""
        own = super().own_passes(step)
        if self.alone:
            yield from own
            return
        for _ in range(self.passes.rounds(step, ranks=self.process_group.world.size)):
            part = next(own, None)
            if part is not None:
                yield part
                continue
            self.raise_if_stopping()
            self.sharding.serve(training=False)

    def raise_if_stopping(self) -> None:
        """Raises StopRequested, in all processes, when one of them was told to go."""
        if self.alone:
            super().raise_if_stopping()
        elif self._anywhere(self.stop_requested())[0]:
            raise StopRequested

    def go_on_alone(self) -> None:
        """Process 0 goes on; this call returns in the others when it needs nothing more of them."""
        super().go_on_alone()
        self.sharding.end()
        if self.process_group.is_main_process:
            self.sharding.lead()
        else:
            self.sharding.follow()

    def need_whole(self, module: torch.nn.Module) -> None:
        """Makes a module's weights readable, until the next module's are asked for."""
        self.sharding.whole(module)

    def dismiss_others(self) -> None:
        """Tells the others that process 0 needs nothing more of them."""
        self.sharding.dismiss()

    def _own_passes(self, model: Any, step: Tensors) -> Share:
        trained, size = self._trained_tokens(step), self.process_group.world.size
        losses: list[torch.Tensor] = []
        lacking: BaseException | None = None
        own = super().own_passes(step)
        for number in range(self.passes.rounds(step, ranks=size)):
            stopping, lacks = self._anywhere(self.stop_requested(), lacking is not None)
            if lacks:
                break
            if stopping:
                return Share(loss=0.0, abandoned=True)
            part = next(own, None)
            if part is None:
                self.sharding.serve(training=True)
                continue
            torch.manual_seed(
                pass_seed(self.args.seed, self.state.global_step, number * size + self.process_group.world.rank)
            )
            self.sharding.begin(training=True)
            try:
                losses.append(self._one_pass(model, part, trained))
                self.sharding.require_complete()
                self.sharding.end()
            except (RuntimeError, MemoryError) as error:
                if memory_that_ran_out(error) is None:
                    raise
                # The traceback holds the tensors of the pass that did not fit.
                traceback.clear_frames(error.__traceback__)
                torch.cuda.empty_cache()
                lacking = error
                self.sharding.finish()
        return Share(loss=0.0 if lacking else math.fsum(loss.item() for loss in losses), lacking=lacking)

    def _anywhere(self, *here: bool) -> list[bool]:
        """Which of these hold in any process."""
        found = self.process_group.all_reduce(torch.tensor([float(value) for value in here]))
        return [bool(value) for value in found.tolist()]
