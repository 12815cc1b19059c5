"""Adds tokens, rate and time to every log entry.

They are put into transformers' `log_history`, which a checkpoint keeps, so a resumed run goes on from them.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from transformers import TrainerCallback

from finetune_trainer.progress.reporter import Clock


class KeepHistory(TrainerCallback):  # type: ignore[misc]
    """Completes every log entry; what reads them is `contract.history.history_of`.

    Args:
        clock: seconds from any fixed moment.
        now: the time of day.
    """

    def __init__(self, clock: Clock, now: Callable[[], datetime]) -> None:
        self._clock = clock
        self._now = now
        self._began: float | None = None
        self._last = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Begins, or goes on where the state's last entry ended."""
        del args, control, rest
        before = max((float(item.get("seconds", 0.0)) for item in state.log_history), default=0.0)
        self._began = self._clock() - before
        self._last = (before, state.num_input_tokens_seen)

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Completes the newest entry."""
        if self._began is None:  # nothing is left to train, and the end is measured
            self.on_train_begin(args, state, control)
            assert self._began is not None
        del args, control, rest
        seconds, tokens = self._clock() - self._began, state.num_input_tokens_seen
        entry = state.log_history[-1]
        entry |= {"seconds": seconds, "tokens": tokens, "wall_time": self._now().timestamp()}
        (last_seconds, last_tokens), self._last = self._last, (seconds, tokens)
        if "loss" in entry and seconds > last_seconds:
            entry["tokens_per_second"] = (tokens - last_tokens) / (seconds - last_seconds)
