"""Which shape the rows have, from the first hundred of them.

The first row alone would decide wrongly whenever it is the odd one: of the shapes that fit, the one that fits most rows
is taken, and the rows that it does not fit are the problems.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec, Fields
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.opening import StoredBytes, open_records
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, keys_shown
from finetune_trainer.data.shapes import Row, Shape, shapes
from finetune_trainer.storage.base import OpenStore

LOOKED_AT_ROWS = 100


def find_shape(dataset: DatasetSpec, objects: Sequence[SourceObject], open_store: OpenStore) -> Shape | Row | None:
    """The rows' shape; or, when no row has a known one, the first row; or None when there is no row at all.

    Raises:
        TrainerError: NOT_SUPPORTED, what reads a format is not installed; or the storage's reason.
    """
    candidates = shapes(dataset.schema_, dataset.fields)
    fitting = [0] * len(candidates)
    first: Row | None = None
    for row in islice(_rows(dataset, objects, open_store), LOOKED_AT_ROWS):
        first = row if first is None else first
        for index, shape in enumerate(candidates):
            fitting[index] += shape.fits(row)
    if any(fitting):
        return candidates[fitting.index(max(fitting))]
    if dataset.schema_ is not DatasetSchema.AUTO:
        return candidates[0]  # named by the user: every row will be told what it lacks
    return first


def unknown_shape(row: Row, fields: Fields | None) -> Fault:
    """The fault of data whose columns are none that are known, or that `dataset.fields` names."""
    possible = shapes(DatasetSchema.AUTO, fields) or shapes(DatasetSchema.AUTO, None)
    known = "; ".join(dict.fromkeys(shape.columns for shape in possible))
    return Fault(
        kind=ProblemKind.SCHEMA,
        found=f"the keys {keys_shown(row)}" if row else "an empty object",
        expected=f"one of: {known}",
        remedy="rename the columns, or map them with dataset.fields",
    )


def _rows(dataset: DatasetSpec, objects: Sequence[SourceObject], open_store: OpenStore) -> Iterator[Row]:
    """The rows that can be parsed; what cannot is the pass's to report."""
    for source in objects:
        with open_store(parse_uri(source.uri)).open(source) as stream:
            try:
                stored = StoredBytes(stream, lambda _: None, hashed=False)
                for _, _, row in open_records(stored, source, dataset, lambda _: None):
                    if isinstance(row, dict):
                        yield row
            except FaultError:
                continue
