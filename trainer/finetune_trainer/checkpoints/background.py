"""Checkpoints are put while the training goes on: a GPU does not wait for an upload.

One transfer at a time: whoever saves faster than the storage takes waits for it a little, and then goes on without this
checkpoint: silent storage must not hold a GPU. A checkpoint that is not put is logged: it is insurance, and
its loss costs something only when the pod goes too.
"""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

from finetune_trainer.checkpoints.shelf import Shelf
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.runtime.log import event

LONGEST_WAIT = 10.0
"""Seconds that a checkpoint on its way may hold up the next one."""


class Checkpointer:
    """Puts checkpoints on a shelf, one at a time, on a thread of its own.

    Args:
        shelf: where to.
        reporter: is told the bytes moved and the newest checkpoint that is there.
        longest_wait: seconds that a checkpoint on its way may hold up the next one.
    """

    def __init__(self, shelf: Shelf, reporter: Reporter, longest_wait: float | None = None) -> None:
        self._shelf = shelf
        self._reporter = reporter
        self._longest_wait = LONGEST_WAIT if longest_wait is None else longest_wait
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self.put_step: int | None = None
        self.failure: str | None = None

    def save(self, folder: Path, step: int, total_steps: int, *, last: bool) -> None:
        """Takes a written checkpoint over: it is put, and then the folder on this machine goes.

        Args:
            folder: its files.
            step: of which step it is.
            total_steps: of the training.
            last: no other follows, so that it is put however long the one before takes.
        """
        if self._running is not None and not last:
            wait_for([self._running], self._longest_wait)
            if not self._running.done():
                message = "not put: the one before is still on its way"
                event("checkpoint", level=logging.WARNING, step=step, message=message)
                shutil.rmtree(folder)
                return
        self.wait()
        self._running = self._thread.submit(self._put, folder, step, total_steps)

    def wait(self) -> None:
        """Waits until nothing is under way."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def _put(self, folder: Path, step: int, total_steps: int) -> None:
        try:
            uri = self._shelf.put(folder, step, total_steps, self._reporter.uploaded)
        except TrainerError as error:
            self.failure = error.message
            event("checkpoint", level=logging.WARNING, step=step, message=f"not put: {error.message}")
            return
        finally:
            shutil.rmtree(folder)
        self.put_step, self.failure = step, None
        self._reporter.update(checkpoint_step=step)
        event("checkpoint", step=step, uri=uri)
