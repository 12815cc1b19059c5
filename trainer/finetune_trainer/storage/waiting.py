"""What is being waited for, told while it lasts: a run that stands still without a word looks like one that hangs."""

import logging
import threading
from collections.abc import Callable

from finetune_trainer.runtime import log

Listener = Callable[[str | None], object]
"""Takes what is waited for now, None when for nothing any more; must return at once and never raise."""


def logged(message: str | None) -> None:
    """Puts it into the process's log."""
    if message is not None:
        log.event("waiting", level=logging.WARNING, message=message)


class Waiting:
    """What each thread waits for, told to all listeners.

    Args:
        listeners: by default the log alone.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners or (logged,)
        self._changing = threading.Lock()
        self._threads: dict[int, str] = {}

    def begin(self, message: str) -> None:
        """The calling thread waits, for what the message says; called for every pause."""
        with self._changing:
            self._threads[threading.get_ident()] = message
        self._tell(message)

    def end(self) -> None:
        """The calling thread waits no more, whether or not it got what it waited for."""
        with self._changing:
            if self._threads.pop(threading.get_ident(), None) is None:
                return
            left = next(reversed(self._threads.values()), None)
        # Another thread's wait was told before.
        if left is None:
            self._tell(None)

    def _tell(self, message: str | None) -> None:
        for listener in self._listeners:
            listener(message)


IN_THE_LOG = Waiting()
"""Told to the log and to nobody else."""
