"""Callbacks between two steps: progress, checkpoints, and the end when a stop is requested."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from finetune_trainer.checkpoints import Checkpointer
from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.recipe.training import DEFAULT_CHECKPOINT_MINUTES, CheckpointSpec
from finetune_trainer.memory.process import peak_process_bytes
from finetune_trainer.progress.reporter import Clock, Reporter
from finetune_trainer.progress.step_rate import StepRate
from finetune_trainer.runtime.log import event
from finetune_trainer.tracking.messages import numbers
from finetune_trainer.tracking.tracker import Tracker
from finetune_trainer.train.divergence import Divergence
from finetune_trainer.train.micro_batches import MicroBatches

_WORTH_SAVING_SECONDS = 60.0
"""Training since the last checkpoint that is saved at the end, in seconds."""


class ReportSteps(TrainerCallback):  # type: ignore[misc]
    """Reports every step and logs every loss."""

    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter = reporter
        self._clock = clock
        self._rate = StepRate()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Reports how many steps there will be."""
        del args, control, rest
        step, total = state.global_step, state.max_steps
        self._reporter.update(stage=Stage.TRAINING, step=step, total_steps=total, percent=100 * step // total)
        self._rate.step(self._clock(), step, state.num_input_tokens_seen)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Reports the step and the estimate."""
        del args, control, rest
        self._rate.step(self._clock(), state.global_step, state.num_input_tokens_seen)
        self._reporter.update(
            step=state.global_step,
            percent=100 * state.global_step // state.max_steps,
            epoch=state.epoch,
            tokens_per_second=self._rate.tokens_per_second(),
            steps_per_second=self._rate.steps_per_second(),
            eta_seconds=self._rate.eta_seconds(state.max_steps),
            peak_gpu_memory_bytes=_peak_gpu_memory(),
            peak_memory_bytes=peak_process_bytes(),
        )

    def smaller_micro_batches(self, micro_batches: MicroBatches) -> None:
        """Reports and logs that memory ran out and the step is repeated in smaller micro-batches."""
        self._reporter.update(pass_tokens=micro_batches.max_tokens)
        event(
            "memory",
            level=logging.WARNING,
            message="ran out; same step in smaller passes",
            pass_tokens=micro_batches.max_tokens,
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """Reports and logs the loss."""
        del args, control, rest
        if logs is None or "loss" not in logs:
            return
        loss, rate = logs["loss"], logs.get("learning_rate")
        margin, accuracy = logs.get("rewards/margins"), logs.get("rewards/accuracies")
        self._reporter.update(loss=loss, learning_rate=rate, reward_margin=margin, reward_accuracy=accuracy)
        progress = self._reporter.progress
        event(
            "step",
            step=f"{state.global_step}/{state.max_steps}",
            loss=loss,
            reward_margin=margin,
            reward_accuracy=accuracy,
            learning_rate=rate,
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=progress.tokens_per_second,
            eta_seconds=progress.eta_seconds,
        )


class SendMetrics(TrainerCallback):  # type: ignore[misc]
    """Sends every entry of the training's history to the tracker."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """Sends the entry's numbers."""
        del args, control, rest
        self._tracker.log(state.global_step, numbers(logs or {}))


class StopWhenRequested(TrainerCallback):  # type: ignore[misc]
    """Ends the training when its processes have agreed to stop; another process writes the checkpoint."""

    def __init__(self, stop_requested: Callable[[], bool]) -> None:
        self._stop_requested = stop_requested

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Ends the training when a stop was requested."""
        del args, rest
        if self._stop_requested() and state.global_step < state.max_steps:
            control.should_training_stop = True
        return control


class SaveWhenDue(TrainerCallback):  # type: ignore[misc]
    """Has a checkpoint written when one is due, and ends the training when a stop is requested.

    Args:
        checkpointer: takes what was written.
        spec: how often.
        stop_requested: whether a stop was requested.
        clock: seconds.
        divergence: says whether the model is worth a checkpoint, which takes the place of an older one.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        spec: CheckpointSpec,
        stop_requested: Callable[[], bool],
        clock: Clock,
        divergence: Divergence,
    ) -> None:
        self._checkpointer = checkpointer
        self._steps = spec.every_steps
        minutes = spec.every_minutes or (None if spec.every_steps else DEFAULT_CHECKPOINT_MINUTES)
        self._seconds = minutes and minutes * 60.0
        self._stop_requested = stop_requested
        self._clock = clock
        self._divergence = divergence
        self._saved = clock()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Starts the time until the first one."""
        del args, state, control, rest
        self._saved = self._clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks for a checkpoint where one is due, and for the end when a stop was requested."""
        del args, rest
        last = state.global_step >= state.max_steps
        if self._stop_requested() and not last:
            control.should_training_stop = control.should_save = True
        elif self._due(state.global_step, last=last) and not self._divergence.suspected:
            control.should_save = True
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks for a checkpoint at the end of a training that stops early, as after the last step."""
        del args, rest
        if control.should_training_stop and self._due(state.global_step, last=True):
            control.should_save = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Hands the written checkpoint over."""
        del rest
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        last = control.should_training_stop or state.global_step >= state.max_steps
        self._checkpointer.save(folder, state.global_step, state.max_steps, last=last)
        self._saved = self._clock()

    def _due(self, step: int, *, last: bool) -> bool:
        """After the last step only what takes long to do again is worth it: evaluation and upload follow."""
        waited = self._clock() - self._saved
        if last:
            return waited >= _WORTH_SAVING_SECONDS
        by_steps = self._steps is not None and step % self._steps == 0
        return by_steps or (self._seconds is not None and waited >= self._seconds)


def _peak_gpu_memory() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
