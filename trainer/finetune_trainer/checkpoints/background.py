"""Checkpoints are put while the training goes on: a GPU does not wait for an upload.

One transfer at a time: whoever saves faster than the storage takes waits for it. A checkpoint that cannot be put is
logged and the training goes on: it is insurance, and its loss costs something only when the pod goes too.
"""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from finetune_trainer.checkpoints.shelf import Shelf
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.log import event
from finetune_trainer.report import Reporter


class Checkpointer:
    """Puts checkpoints on a shelf, one at a time, on a thread of its own.

    Args:
        shelf: where to.
        reporter: is told the bytes moved and the newest checkpoint that is there.
    """

    def __init__(self, shelf: Shelf, reporter: Reporter) -> None:
        self._shelf = shelf
        self._reporter = reporter
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self.put_step: int | None = None
        self.failure: str | None = None

    def save(self, folder: Path, step: int, total_steps: int) -> None:
        """Takes a written checkpoint over: it is put, and then the folder on this machine goes."""
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
