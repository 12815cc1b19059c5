"""Tokens per second, and the remaining time of a training."""

from collections import deque

_RECENT_STEPS = 20


class StepRate:
    """The rate of the last 20 steps. The first steps of a training are slow and must not distort the estimate."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_RECENT_STEPS + 1)

    def step(self, now: float, step: int, tokens: int) -> None:
        """Records that a step has ended.

        Args:
            now: time in seconds.
            step: number of steps since the training's start.
            tokens: number of tokens since the training's start.
        """
        self._marks.append((now, step, tokens))

    def tokens_per_second(self) -> float | None:
        """Returns the tokens per second of the recent steps, or None before the second step."""
        elapsed, _, tokens = self._recent()
        return tokens / elapsed if elapsed > 0 else None

    def steps_per_second(self) -> float | None:
        """Returns the steps per second of the recent steps, or None before the second step."""
        elapsed, steps, _ = self._recent()
        return steps / elapsed if elapsed > 0 else None

    def eta_seconds(self, total_steps: int) -> int | None:
        """Returns the estimated seconds until step `total_steps`, or None before the second step."""
        elapsed, steps, _ = self._recent()
        if not self._marks or elapsed <= 0 or steps <= 0:
            return None
        return round(elapsed / steps * max(0, total_steps - self._marks[-1][1]))

    def _recent(self) -> tuple[float, int, int]:
        if not self._marks:
            return 0.0, 0, 0
        (start, first_step, first_tokens), (end, last_step, last_tokens) = self._marks[0], self._marks[-1]
        return end - start, last_step - first_step, last_tokens - first_tokens
