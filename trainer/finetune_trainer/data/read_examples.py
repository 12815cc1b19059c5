"""Reads the data for the trainer: the examples, or one error with all problems."""

from collections.abc import Iterator, Sequence

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSpec
from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.examples import Example, RowLocation
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.storage.base import ByteCount, OpenStore


def read_examples(
    dataset: DatasetSpec,
    objects: Sequence[SourceObject],
    open_store: OpenStore,
    on_bytes: ByteCount = lambda _: None,
    duplicates: DuplicateCounter | None = None,
) -> Iterator[Example]:
    """The examples of the objects, in order. Memory does not grow with their number.

    After the first problem no more examples are yielded. The rest is only checked for further problems, and the error
    is raised at the end. So use the examples only when the iteration has ended without an error.

    Args:
        dataset: how rows are read, and the limits.
        objects: the objects to read, from `inputs.sources.dataset_objects`.
        open_store: opens the store of an object.
        on_bytes: called with the number of stored bytes as they are read.
        duplicates: counts the rows that repeat an earlier row.

    Raises:
        TrainerError: DATASET_INVALID with the first problems and the totals; NOT_SUPPORTED when a package that reads
            the format is not installed; or the storage's reason.
    """
    scan = DatasetScan(dataset, objects, open_store, on_bytes, duplicates)
    findings = scan.findings
    for row_schema, file, line, row in scan:
        if not findings.count:
            yield row_schema.build(row, RowLocation(file=file, line=line, unit=scan.unit))
    findings.raise_if_any()


def for_validation(dataset: DatasetSpec) -> DatasetSpec:
    """The spec for reading a separate validation data set: its `sha256` is that of the validation object."""
    return dataset.model_copy(update={"sha256": dataset.validation.sha256 if dataset.validation else None})
