"""Data parallel training with the base model's weights sharded over the processes (model/sharded_weights.py).

Every micro-batch of one process needs the shards of the others. So all go through a step round by round, and a process
without a micro-batch in a round takes part in those of the others. Before each round they agree to go on: a stop, or
memory that ran out in one of them, ends the step for all at once.
"""

import traceback
from collections.abc import Iterator
from typing import Any

import torch

from finetune_trainer.distributed.process_group import ProcessGroup
from finetune_trainer.model.sharded_weights import ShardedWeights
from finetune_trainer.runtime.machine_errors import out_of_memory_reason
from finetune_trainer.train.data_parallel import DataParallelTrainer, LocalStep, exact_sums, micro_batch_seed
from finetune_trainer.train.micro_batch_trainer import StopRequested
from finetune_trainer.train.micro_batches import ModelInputs


class ShardedTrainer(DataParallelTrainer):
    """DataParallelTrainer for one of several processes that each hold a part of the base model.

    Attributes:
        sharded_weights: how they give each other what they need.
    """

    def __init__(
        self, sharded_weights: ShardedWeights, process_group: ProcessGroup, *arguments: Any, **named: Any
    ) -> None:
        self.sharded_weights = sharded_weights
        super().__init__(process_group, *arguments, **named)
        sharded_weights.shard_embeddings_and_head(self.model.get_base_model(), plain_head=self.head_is_frozen)

    def before_lm_head(self) -> None:
        """Unshards the head."""
        self.sharded_weights.unshard_head()

    def local_micro_batches(self, step: ModelInputs) -> Iterator[ModelInputs]:
        """This process's share of an evaluation; it takes part in the micro-batches that the others have more."""
        own = super().local_micro_batches(step)
        if self.others_ended:
            yield from own
            return
        for _ in range(self.micro_batches.rounds(step, ranks=self.process_group.world.size)):
            micro_batch = next(own, None)
            if micro_batch is not None:
                yield micro_batch
                continue
            self.raise_if_stopping()
            self.sharded_weights.join_pass(training=False)

    def raise_if_stopping(self) -> None:
        """Raises StopRequested, in all processes, when a stop was requested in one of them."""
        if self.others_ended:
            super().raise_if_stopping()
        elif self._any_process(self.stop_requested())[0]:
            raise StopRequested

    def continue_on_main_process(self) -> None:
        """Process 0 goes on; this call returns in the others when it needs nothing more of them."""
        super().continue_on_main_process()
        self.sharded_weights.end_pass()
        if self.process_group.is_main_process:
            self.sharded_weights.start_leading()
        else:
            self.sharded_weights.follow_main_process()

    def unshard(self, module: torch.nn.Module) -> None:
        """Makes a module's weights readable, until the next module's are asked for."""
        self.sharded_weights.unshard(module)

    def release_other_processes(self) -> None:
        """Tells the others that process 0 needs nothing more of them."""
        self.sharded_weights.release_followers()

    def _run_local_micro_batches(self, model: Any, step: ModelInputs) -> LocalStep:
        totals, size = self.objective.totals(step), self.process_group.world.size
        parts: list[torch.Tensor] = []
        out_of_memory: BaseException | None = None
        own = super().local_micro_batches(step)
        for number in range(self.micro_batches.rounds(step, ranks=size)):
            stopping, any_out_of_memory = self._any_process(self.stop_requested(), out_of_memory is not None)
            if any_out_of_memory:
                break
            if stopping:
                return LocalStep(stopped=True)
            micro_batch = next(own, None)
            if micro_batch is None:
                self.sharded_weights.join_pass(training=True)
                continue
            torch.manual_seed(
                micro_batch_seed(self.args.seed, self.state.global_step, number * size + self.process_group.world.rank)
            )
            self.sharded_weights.begin_pass(training=True)
            try:
                parts.append(self._run_micro_batch(model, micro_batch, totals))
                self.sharded_weights.require_pass_complete()
                self.sharded_weights.end_pass()
            except (RuntimeError, MemoryError) as error:
                if out_of_memory_reason(error) is None:
                    raise
                # The traceback holds the tensors of the micro-batch that did not fit.
                traceback.clear_frames(error.__traceback__)
                torch.cuda.empty_cache()
                out_of_memory = error
                self.sharded_weights.finish_pass()
        return LocalStep(sums=() if out_of_memory else exact_sums(parts), out_of_memory=out_of_memory)

    def _any_process(self, *here: bool) -> list[bool]:
        """Which of these are true in any process."""
        sums = self.process_group.all_reduce(torch.tensor([float(value) for value in here]))
        return [bool(value) for value in sums.tolist()]
