"""Uploads checkpoints in the background, so that a GPU does not wait for storage.

One upload runs at a time. When the next checkpoint comes before its end, the training waits at most 10 s and then drops
the new checkpoint. A failed upload is only logged: the training needs the checkpoint only if the pod is lost.
"""

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path

from finetune_trainer.checkpoints.store import CheckpointStore
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.runtime.log import event

LONGEST_WAIT = 10.0
"""Seconds that the training waits for a running upload before it drops the next checkpoint."""


class Checkpointer:
    """Uploads checkpoints one at a time, on its own thread.

    Args:
        checkpoints: the run's checkpoints in storage.
        reporter: gets the bytes uploaded and the step of the newest checkpoint.
        longest_wait: seconds to wait for a running upload before the next checkpoint is dropped. None means 10 s.

    Attributes:
        uploaded_step: step of the newest uploaded checkpoint; None before the first.
        failure: message of the last upload if it failed, else None.
    """

    def __init__(self, checkpoints: CheckpointStore, reporter: Reporter, longest_wait: float | None = None) -> None:
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._longest_wait = LONGEST_WAIT if longest_wait is None else longest_wait
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self.uploaded_step: int | None = None
        self.failure: str | None = None

    def save(self, folder: Path, step: int, total_steps: int, *, last: bool, measured: int = 0) -> None:
        """Starts the upload of a written checkpoint. Its folder on this machine is removed afterwards.

        While the upload before still runs after the longest wait, the checkpoint is dropped.

        Args:
            folder: the checkpoint's files.
            step: the checkpoint's step; 0 for what was measured before the first.
            total_steps: steps of the training.
            last: True for the last checkpoint, which is never dropped.
            measured: before the first step, the pairs that were measured.
        """
        if self._running is not None and not last:
            wait_for([self._running], self._longest_wait)
            if not self._running.done():
                message = "not uploaded: the upload before it is still running"
                event("checkpoint", level=logging.WARNING, step=step, message=message)
                shutil.rmtree(folder)
                return
        self.wait()
        self._running = self._thread.submit(self._upload, folder, step, total_steps, measured)

    def wait(self) -> None:
        """Waits until no upload is running."""
        if self._running is not None:
            self._running.result()
            self._running = None

    def _upload(self, folder: Path, step: int, total_steps: int, measured: int) -> None:
        try:
            uri = self._checkpoints.upload(folder, step, total_steps, self._reporter.uploaded, measured)
        except TrainerError as error:
            self.failure = error.message
            event("checkpoint", level=logging.WARNING, step=step, message=f"not uploaded: {error.message}")
            return
        finally:
            shutil.rmtree(folder)
        self.uploaded_step, self.failure = step, None
        if step:
            self._reporter.checkpoint(step)
        event("checkpoint", step=step, uri=uri)
