"""Checkpoints of a preference training before its first step: what is known of the reference model so far.

With many pairs the measurement takes as long as a third of an epoch. A pod that is preempted in it must not lose it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from finetune_trainer.checkpoints import Checkpointer
from finetune_trainer.contract.recipe.training import DEFAULT_CHECKPOINT_MINUTES, CheckpointSpec
from finetune_trainer.progress.reporter import Clock
from finetune_trainer.train.reference import LogProbs, write_reference


class ReferenceCheckpoints:
    """Has what is measured uploaded as a checkpoint of step 0, where that is due.

    Args:
        checkpointer: takes what was written.
        work: a folder to write in.
        spec: how often. Steps do not count here.
        clock: seconds.
    """

    def __init__(self, checkpointer: Checkpointer, work: Path, spec: CheckpointSpec, clock: Clock) -> None:
        self._checkpointer = checkpointer
        self._work = work
        self._seconds = 60.0 * (spec.every_minutes or DEFAULT_CHECKPOINT_MINUTES)
        self._clock = clock
        self._saved = clock()
        self._measured = self._uploaded = 0

    def keep(self, known: Mapping[str, LogProbs], *, stopping: bool) -> None:
        """Takes what is known after a group of pairs, and uploads it when that is due or the process is about to stop.

        Args:
            known: log-probabilities by the name of the rows; NaN where a pair is not measured yet.
            stopping: whether the process is about to stop.
        """
        self._measured = sum(int(np.isfinite(values).all(axis=1).sum()) for values in known.values())
        due = stopping or self._clock() - self._saved >= self._seconds
        if due and self._measured > self._uploaded:
            folder = self._work / f"reference-{self._measured}"
            folder.mkdir()
            write_reference(folder, known)
            self._checkpointer.save(folder, 0, 0, last=stopping, measured=self._measured)
            self._uploaded, self._saved = self._measured, self._clock()
        if stopping:
            self._checkpointer.wait()

    def message(self) -> str:
        """What the next attempt finds, for the message at the end of this one."""
        if self._checkpointer.failure:
            return f"what was measured could not be kept: {self._checkpointer.failure}"
        return f"the newest checkpoint has {self._measured:,} pairs" if self._measured else "there is no checkpoint"
