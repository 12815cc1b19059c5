"""The collaborators that a trainer asks and tells while it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from finetune_trainer.train.divergence import Divergence
from finetune_trainer.train.evaluation import Evaluation
from finetune_trainer.train.micro_batches import MicroBatches


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerHooks:
    """The trainer's collaborators.

    Attributes:
        stop_requested: asked before every micro-batch.
        heartbeat: called between the micro-batches and tokens of an evaluation, which may take long.
        on_smaller_micro_batches: called with the new split when memory ran out.
        evaluation: evaluates the adapter; None when there are no rows to evaluate with.
        divergence: takes the loss of every step.
    """

    stop_requested: Callable[[], bool] = lambda: False
    heartbeat: Callable[[], object] = lambda: None
    on_smaller_micro_batches: Callable[[MicroBatches], object] = lambda _: None
    evaluation: Evaluation | None = None
    divergence: Divergence = field(default_factory=Divergence)
