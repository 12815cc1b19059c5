"""The data for the trainer: examples, or one error that says everything that is wrong."""

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
    """The examples of the objects, in order; memory does not grow with their number.

    Nothing more is yielded after the first problem: the rest is only looked through for further ones, and the error
    comes at the end. So the examples count only when the iteration has ended well.

    Args:
        dataset: how rows are read, and the limits.
        objects: what to read, as `inputs.sources.dataset_objects` gives it.
        open_store: where objects are opened.
        on_bytes: called with stored bytes as they are read.
        duplicates: counts the rows that train what a row before has trained.

    Raises:
        TrainerError: DATASET_INVALID with the first problems and totals; NOT_SUPPORTED when what reads a format is not
            installed; or the storage's reason.
    """
    scan = DatasetScan(dataset, objects, open_store, on_bytes, duplicates)
    findings = scan.findings
    for row_schema, file, line, row in scan:
        if not findings.count:
            yield row_schema.build(row, RowLocation(file=file, line=line, unit=scan.unit))
    findings.raise_if_any()


def for_validation(dataset: DatasetSpec) -> DatasetSpec:
    """How validation rows of their own are read: as the others, but dataset.sha256 is the training object's."""
    return dataset.model_copy(update={"sha256": None})
