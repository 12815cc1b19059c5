"""What happens between two steps: progress, and the end when the pod is told to go."""

import threading
from typing import Any

from transformers import TrainerCallback

from finetune_trainer.contract.progress import Stage
from finetune_trainer.log import event
from finetune_trainer.report import Clock, Pace, Reporter


class ReportSteps(TrainerCallback):  # type: ignore[misc]
    """Reports every step and logs every loss."""

    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter = reporter
        self._clock = clock
        self._pace = Pace()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Reports how many steps there will be."""
        del args, control, rest
        self._reporter.update(stage=Stage.TRAINING, step=0, total_steps=state.max_steps, percent=0)
        self._pace.step(self._clock(), 0, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Reports the step and the estimate."""
        del args, control, rest
        self._pace.step(self._clock(), state.global_step, state.num_input_tokens_seen)
        self._reporter.update(
            step=state.global_step,
            percent=100 * state.global_step // state.max_steps,
            epoch=state.epoch,
            tokens_per_second=self._pace.tokens_per_second(),
            eta_seconds=self._pace.eta_seconds(state.max_steps),
            peak_gpu_memory_bytes=_peak_gpu_memory(),
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        """Reports and logs the loss."""
        del args, control, rest
        if logs is None or "loss" not in logs:
            return
        loss, rate = logs["loss"], logs.get("learning_rate")
        self._reporter.update(loss=loss, learning_rate=rate)
        progress = self._reporter.progress
        event(
            "step",
            step=f"{state.global_step}/{state.max_steps}",
            loss=loss,
            learning_rate=rate,
            grad_norm=logs.get("grad_norm"),
            tokens_per_second=progress.tokens_per_second,
            eta_seconds=progress.eta_seconds,
        )


class StopWhenTold(TrainerCallback):  # type: ignore[misc]
    """Ends the training at the next step boundary once the flag is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
        """Asks the trainer to end."""
        del args, state, rest
        if self._stop.is_set():
            control.should_training_stop = True
        return control


def _peak_gpu_memory() -> int | None:
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
