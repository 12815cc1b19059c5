"""Which shape the rows have, from the first hundred of them.

The first row alone would decide wrongly whenever it is the odd one: of the shapes that fit, the one that fits most rows
is taken, and the rows that it does not fit are the problems.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec, Fields
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.opening import StoredBytes, open_records
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, keys_shown
from finetune_trainer.data.records import Row
from finetune_trainer.data.shapes import Shape, columns_read, shapes
from finetune_trainer.storage.base import OpenStore

LOOKED_AT_ROWS = 100
_LIKELY: Final[Sequence[Mapping[str, Collection[str]]]] = (
    {"messages": ("messages", "conversation", "conversations", "chat", "dialog", "dialogue", "turns")},
    {"instruction": ("instruction",), "input": ("input", "context"), "output": ("output", "response", "answer")},
    {
        "prompt": ("prompt", "question", "query", "input", "instruction"),
        "completion": ("completion", "response", "answer", "output", "target", "chosen"),
    },
    {"text": ("text", "content", "body", "document")},
)
"""The names that other data sets give to the parts of a row."""


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
    known = list(dict.fromkeys(shape.columns for shape in possible))
    empty = [name for name in row if row[name] is None and name in columns_read(fields)]
    nothing = f", without a value: {', '.join(empty)}" if empty else ""
    return Fault(
        kind=ProblemKind.SCHEMA,
        found=f"the keys {keys_shown(row)}{nothing}" if row else "an empty object",
        expected=known[0] if len(known) == 1 else f"one of: {'; '.join(known)}",
        remedy="fill the columns in, or name others in dataset.fields" if empty else _remedy(row, fields),
    )


def _remedy(row: Row, fields: Fields | None) -> str:
    """What to do about columns that are not known."""
    if fields is not None and fields.named:
        return "dataset.fields must name columns, and keys of turns, that are there"
    if "role" in row and "content" in row:
        return 'a turn stands where a row should: put the list of turns under a key, {"messages": […]}'
    for wanted in _LIKELY:
        found = {part: next((key for key in row if key.lower() in names), None) for part, names in wanted.items()}
        if all(found.values()):
            pairs = ", ".join(f"{part}: {name}" for part, name in found.items())
            return f"rename the columns, or map them, perhaps with dataset.fields: {{{pairs}}}"
    return "rename the columns, or map them with dataset.fields"


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
