"""Evaluation during training: when, which adapter is the best, and whether it still improves.

With `evaluation.everySteps` the best adapter is kept, as transformers' `load_best_model_at_end` does. Every decision
follows from `log_history` and the best adapter, and a checkpoint holds both.
"""

from collections.abc import Callable
from typing import Any, Final

from transformers import TrainerCallback

from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.training import EvaluationMetric
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.runtime.log import event
from finetune_trainer.train.best_adapter import BestAdapter
from finetune_trainer.train.divergence import require_finite
from finetune_trainer.train.early_stopping import (
    EVAL_ACCURACY,
    EVAL_LOSS,
    has_stopped_improving,
    score,
    validation_losses,
    validation_scores,
)
from finetune_trainer.train.validation_loss import EvaluatedTrainer, ValidationRows, validation_metrics

_EVAL: Final = "eval_"
"""What the names of validation metrics begin with."""


class EarlyStoppedError(Exception):
    """The training that was to be resumed has ended: the validation loss no longer improves."""


class Evaluation(TrainerCallback):  # type: ignore[misc]
    """Evaluates the adapter when that is due.

    Args:
        recipe: when, and when to stop early.
        rows: the validation rows.
        reporter: gets the losses.
        stop_requested: whether a stop was requested: no evaluation begins then; a resumed training does it first.

    Attributes:
        best: the best adapter so far; None when only the end is evaluated.
    """

    best: BestAdapter | None = None

    def __init__(
        self, recipe: Recipe, rows: ValidationRows, reporter: Reporter, stop_requested: Callable[[], bool]
    ) -> None:
        self._every = recipe.evaluation.every_steps
        self._early_stopping = recipe.training.early_stopping
        self._metric = self._early_stopping.metric if self._early_stopping else EvaluationMetric.LOSS
        self._rows = rows
        self._reporter = reporter
        self._stop_requested = stop_requested

    def is_overdue(self, state: Any) -> bool:
        """Whether a resumed training has to evaluate its step first: its pod was asked to stop before it did."""
        return self._due(state) and state.global_step not in validation_losses(state.log_history)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks for an evaluation where one is due. The last step's comes after its checkpoint (`finish`)."""
        del args, rest
        if self._due(state) and not self._stop_requested():
            control.should_evaluate = True
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Ends the training that no longer improves."""
        del args, rest
        if self.ended_early(state):
            control.should_training_stop = True
            scores = validation_scores(state.log_history, self._metric)
            best = min(scores, key=lambda step: scores[step])
            event("early-stopping", step=f"{state.global_step}/{state.max_steps}", best_step=best)
        return control

    def evaluate(self, trainer: EvaluatedTrainer) -> float:
        """Evaluates the trainer's adapter, logs the loss, and keeps the adapter when it is the best.

        Raises:
            StopRequested: before a micro-batch; nothing is noted.
            TrainerError: the loss is no number.
        """
        before = self._reporter.progress.stage
        step = trainer.state.global_step
        self._reporter.stage(Stage.EVALUATING)
        metrics = validation_metrics(trainer, self._rows)
        loss, accuracy = metrics[EVAL_LOSS], metrics.get(EVAL_ACCURACY)
        require_finite("the validation loss", loss, lambda: f"after step {step}")
        trainer.log(metrics)
        own = score(metrics, self._metric)
        if self._every is not None and (self.best is None or own < self.best.score):
            self.best = BestAdapter.of(trainer.model, step, loss, own)
        self._reporter.update(stage=before, eval_loss=loss, eval_reward_accuracy=accuracy)
        event(
            "evaluation",
            step=f"{step}/{trainer.state.max_steps}",
            eval_loss=loss,
            eval_reward_accuracy=accuracy,
            rows=len(self._rows),
        )
        return loss

    def ended_early(self, state: Any) -> bool:
        """Whether the training has ended before its last step."""
        spec = self._early_stopping
        early = state.global_step < state.max_steps
        scores = validation_scores(state.log_history, self._metric)
        return early and spec is not None and has_stopped_improving(scores.values(), spec)

    def finish(self, trainer: EvaluatedTrainer) -> None:
        """Evaluates the last step, unless that was done, and puts the best adapter into the model.

        Raises:
            StopRequested: before a micro-batch; the model has the last adapter then.
        """
        state = trainer.state
        if state.global_step not in validation_losses(state.log_history):
            trainer.evaluate()
        if self.best is not None and self.best.step != state.global_step:
            self.best.put_into(trainer.model)
            event("best", step=self.best.step, eval_loss=self.best.loss)

    def kept(self, state: Any) -> tuple[int, dict[str, float]]:
        """Step and validation metrics of the adapter that is kept, by the state of a training that has ended."""
        step = self.best.step if self.best is not None else state.global_step
        entry = next(entry for entry in state.log_history if entry["step"] == step and EVAL_LOSS in entry)
        return step, {name: value for name, value in entry.items() if name.startswith(_EVAL)}

    def _due(self, state: Any) -> bool:
        step = state.global_step
        return self._every is not None and 0 < step < state.max_steps and step % self._every == 0


class OverdueEvaluation(TrainerCallback):  # type: ignore[misc]
    """Evaluates before the first step of a resumed training, where its pod was asked to stop before it did.

    Args:
        evaluation: says whether one is overdue.
        evaluate: evaluates the trainer's adapter.
    """

    def __init__(self, evaluation: Evaluation, evaluate: Callable[[], object]) -> None:
        self._evaluation = evaluation
        self._evaluate = evaluate

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Evaluates.

        Raises:
            EarlyStoppedError: that was the last step.
        """
        del args, rest
        if self._evaluation.is_overdue(state):
            self._evaluate()
            if control.should_training_stop:
                raise EarlyStoppedError
