"""Sends what a training says to its tracker, and keeps it while the tracker does not answer."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from finetune_trainer.tracking.clients import Client
from finetune_trainer.tracking.messages import Begin, Metrics, RunStatus

KEPT = 10_000
"""Entries that are kept for a tracker that does not answer. The oldest ones are dropped first."""
RETRY_SECONDS = 30.0
"""Seconds after a failure before the tracker is asked again."""


class Say(Protocol):
    """Takes a message for the training's log."""

    def __call__(self, message: str, *, warning: bool = False) -> object:
        """Takes the message, and whether somebody should look at it."""
        ...


class Sender:
    """Sends a run's numbers, in their order.

    Args:
        client: the tracker's client.
        run: the run.
        clock: seconds.
        say: takes a message for the training's log.
    """

    def __init__(self, client: Client, run: Begin, clock: Callable[[], float], say: Say) -> None:
        self._client, self._run, self._clock, self._say = client, run, clock, say
        self._waiting: deque[Metrics] = deque(maxlen=KEPT)
        self._begun = self._failing = self._unusable = False
        self._again = clock()

    def add(self, metrics: Metrics) -> None:
        """Takes an entry, and sends all that wait unless the tracker failed a moment ago."""
        self._waiting.append(metrics)
        if self._clock() >= self._again:
            self.send()

    def send(self) -> None:
        """Opens the run if it is not open, and sends all that wait. A failure is said once, and so is its end."""
        if self._unusable:
            return
        try:
            if not self._begun:
                place = self._client.begin(self._run)
                self._begun = True
                self._say(f"sending to {self._run.tracker}{f', {place}' if place else ''}")
            while self._waiting:
                self._client.log(self._waiting[0].step, self._waiting[0].values)
                self._waiting.popleft()
        except ImportError as error:
            self._unusable = True
            self._say(f"not sent: {error.name or error}: install finetune-operator[trackers]", warning=True)
        # Each tracker's client has exceptions of its own, and none may end the sending.
        except Exception as error:  # noqa: BLE001
            self._again = self._clock() + RETRY_SECONDS
            if not self._failing:
                self._failing = True
                message = f"does not answer, is asked again every {RETRY_SECONDS:.0f} s: {_first_line(error)}"
                self._say(message, warning=True)
        else:
            if self._failing:
                self._failing = False
                self._say("answers again; nothing is lost")

    def end(self, status: RunStatus) -> None:
        """Sends what waits and closes the run."""
        self.send()
        if self._waiting and not self._unusable:
            self._say(f"{len(self._waiting)} entries were not sent", warning=True)
        if not self._begun:
            return
        try:
            self._client.end(status)
        except Exception as error:  # noqa: BLE001
            self._say(f"the end was not sent: {_first_line(error)}", warning=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__
