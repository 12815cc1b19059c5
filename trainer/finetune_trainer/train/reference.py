"""Log-probabilities of pairs under the reference model, computed once before the training.

The reference is the model as it is when the training begins: a new adapter changes nothing yet, and one that is
continued from is the reference itself. So no second model is held, and a step runs one model. A checkpoint has the
numbers, because a resumed training begins with another adapter. One that is written before the first step has nothing
else.
"""

from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from finetune_trainer.train.micro_batch_trainer import StopRequested
from finetune_trainer.train.micro_batches import IGNORED, ModelInputs
from finetune_trainer.train.preference_loss import PairLogProbs
from finetune_trainer.train.validation_loss import OrderedRows, ValidationRows, evaluating

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer

_NAME = "reference.safetensors"

LogProbs = NDArray[np.float32]
"""Natural logarithms, shape (pairs, 2): the chosen answers' and the rejected ones'."""


class Keep(Protocol):
    """Takes what is measured so far."""

    def __call__(self, known: Mapping[str, LogProbs], *, stopping: bool) -> object:
        """Takes the numbers, NaN where a pair is not measured yet, and whether the process is about to stop."""
        ...


def keep_nothing(known: Mapping[str, LogProbs], *, stopping: bool) -> None:
    """Keeps nothing."""


def measure_reference(
    trainer: "StepTrainer",
    training: Any,
    validation: ValidationRows | None,
    checkpoint: Path | None,
    keep: Keep = keep_nothing,
) -> None:
    """Gives every pair its log-probabilities under the reference model.

    Args:
        trainer: the trainer, before its first step.
        training: the training pairs.
        validation: the validation pairs; None when there are none.
        checkpoint: the checkpoint that the training goes on from. It has the numbers of these pairs, or of a part.
        keep: called after each group of pairs, and when the measurement is stopped.

    Raises:
        StopRequested: before a micro-batch.
    """
    parts = {"training": training} | ({"validation": validation.rows} if validation is not None else {})
    known = read_reference(checkpoint) if checkpoint is not None else None
    if known is None or _sizes(known) != _sizes(parts):
        known = {name: np.full((len(rows), 2), np.nan, np.float32) for name, rows in parts.items()}
    try:
        for name, rows in parts.items():
            for _ in measure_groups(trainer, rows, known[name]):
                keep(known, stopping=False)
    except StopRequested:
        keep(known, stopping=True)
        raise
    trainer.reference = known
    trainer.train_dataset = _with_reference(training, known["training"])
    if validation is not None:
        validation.use(_with_reference(validation.rows, known["validation"]))


def _sizes(parts: Mapping[str, Sized]) -> dict[str, int]:
    return {name: len(rows) for name, rows in parts.items()}


def _with_reference(rows: Any, values: LogProbs) -> Any:
    """The dataset with a column `reference`, a list of two numbers."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    return rows.add_column("reference", column)


def measure_groups(trainer: "StepTrainer", rows: Any, known: LogProbs) -> Iterator[None]:
    """Fills in the log-probabilities of the pairs under the trainer's model as it is now, a group of pairs at a time.

    A group is measured as a whole or not at all. So its micro-batches, and their last bits, are always the same.

    Args:
        trainer: the trainer, before its first step.
        rows: a dataset of pairs that `token_dataset.write_rows` has made.
        known: the numbers, NaN where a pair is not measured yet. They are written here.

    Yields:
        After each group that was measured.

    Raises:
        StopRequested: before a micro-batch.
    """
    for places, group in OrderedRows(rows).groups():
        if not np.isnan(known[places]).any():
            continue

        def own(group: ModelInputs = group, size: int = len(places)) -> torch.Tensor:
            found = torch.zeros(size, 2, dtype=torch.float64)
            # Before the training transformers has not put autocast around the model yet.
            with evaluating(trainer), trainer.accelerator.autocast():
                for micro_batch in trainer.local_micro_batches(group):
                    trainer.raise_if_stopping()
                    trainer.heartbeat()
                    output, labels, pairs = trainer.run_model(micro_batch)
                    assert pairs is not None
                    sums = PairLogProbs.of(output.log_probs, labels[:, 1:] != IGNORED, pairs.lengths).log_probs
                    found[pairs.rows] = sums.double().cpu()
            return found

        known[places] = trainer.sum_over_processes(own, (len(places), 2)).numpy().astype(np.float32)
        yield


def write_reference(folder: Path, parts: Mapping[str, LogProbs]) -> None:
    """Writes them into a checkpoint's folder; by the name of the rows."""
    save_file(dict(parts), folder / _NAME)


def read_reference(folder: Path) -> dict[str, LogProbs] | None:
    """What `write_reference` has written; None where there is none."""
    file = folder / _NAME
    return load_file(file) if file.exists() else None
