"""Columns and keys that are not read: those that change what a row means are refused, the others are named.

A row whose answer is the worse one of two, or that asks about an image, has a text that can be trained. The result
would be wrong, and nothing would say so.
"""

import re
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec, Fields
from finetune_trainer.data.formats.records import ExpectedRows, Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.row_schemas import RowSchema, row_schemas

_PREFERENCE: Final = re.compile(r"(chosen|rejected)(_\w+)?|\w+_(chosen|rejected)|kto_tag", re.IGNORECASE)
_LABEL: Final = "label"
"""KTO's column of a bool: whether the answer is a good one. Other labels are classes, and only named."""
_MEDIA: Final = frozenset({"image", "images", "audio", "audios", "video", "videos"})
_ANSWERS: Final = frozenset({"answer", "answers", "completion", "output", "response"})
"""Columns that hold what a model should say, beside a column of running text."""
_MEANINGFUL: Final = frozenset({"chosen", "rejected", "rejected_response", "kto_tag", _LABEL, *_MEDIA, *_ANSWERS})
"""Columns whose values are looked at. Formats that read columns one by one read these too."""
_MOST_SHAPES = 10_000
_MOST_NAMES = 1000


class UnreadColumns:
    """Looks at the columns of every row that its schema does not read.

    Args:
        dataset: the recipe's section. Columns that it maps or ignores, and a schema that it names, are the user's
            decision.
        row_schema: the schema of the rows.

    Attributes:
        names: the columns that are not read, in the order of their first appearance.
    """

    def __init__(self, dataset: DatasetSpec, row_schema: RowSchema) -> None:
        fields = dataset.fields
        mapped = {getattr(fields, name) for name in fields.named} if fields is not None else set[str]()
        self._decided = {*(dataset.ignored_columns or ()), *mapped}
        self._takes_preference = any(_PREFERENCE.fullmatch(name) for name in self._decided)
        self._row_schema = row_schema
        named = dataset.schema_ is DatasetSchema.TEXT or (fields is not None and fields.text is not None)
        self._looks_for_answers = row_schema.schema is DatasetSchema.TEXT and not named
        self._suspects_of: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.names: dict[str, None] = {}

    def fault(self, row: Row) -> Fault | None:
        """The fault of a row with a column that changes its meaning."""
        shape = tuple(row)
        suspects = self._suspects_of.get(shape)
        if suspects is None:
            suspects = self._suspects(shape)
        for name in suspects:
            if fault := self._fault(name, row):
                return fault
        return None

    def _suspects(self, shape: tuple[str, ...]) -> tuple[str, ...]:
        """Notes the columns of a shape that is new; returns those whose values must be looked at."""
        unread = [name for name in shape if name not in self._row_schema.reads]
        if len(self.names) < _MOST_NAMES:
            self.names |= dict.fromkeys(unread)
        suspects = tuple(name for name in unread if name not in self._decided and self._is_suspect(name))
        if len(self._suspects_of) < _MOST_SHAPES:
            self._suspects_of[shape] = suspects
        return suspects

    def _is_suspect(self, name: str) -> bool:
        if _PREFERENCE.fullmatch(name) or name == _LABEL:
            return not self._takes_preference
        return name.lower() in _MEDIA or (self._looks_for_answers and name.lower() in _ANSWERS)

    def _fault(self, name: str, row: Row) -> Fault | None:
        value = row[name]
        # A row without the schema's columns has another fault.
        if value is None or value == "" or value == [] or not self._row_schema.fits(row):
            return None
        if name == _LABEL and not isinstance(value, bool):
            return None
        if _PREFERENCE.fullmatch(name) or name == _LABEL:
            return _fault(
                name,
                value,
                "rows with one answer, the good one: this is preference data, which says which answer is better or "
                "worse",
                "map the good answer with dataset.fields, or name the column in dataset.ignoredColumns",
            )
        if name.lower() in _MEDIA:
            return _fault(
                name,
                value,
                "rows of text alone: the model would be trained to answer without what the row shows it",
                "remove these rows, or name the column in dataset.ignoredColumns",
            )
        return _fault(
            name,
            value,
            "no answer beside running text: only the text would be trained",
            f"map both, dataset.fields: {{prompt: text, completion: {name}}}, or name the column in "
            "dataset.ignoredColumns",
        )


def columns_read(fields: Fields | None) -> frozenset[str]:
    """The columns whose values are looked at, for formats in which columns are read separately."""
    every = {*row_schemas(DatasetSchema.AUTO, fields), *row_schemas(DatasetSchema.AUTO, None)}
    return _MEANINGFUL | {column for row_schema in every for column in row_schema.reads}


def expected_rows(dataset: DatasetSpec) -> ExpectedRows:
    """What the readers of formats know of the rows of a data set."""
    schemas = row_schemas(DatasetSchema.AUTO, dataset.fields)
    return ExpectedRows(
        columns=columns_read(dataset.fields), is_row=lambda row: any(schema.fits(row) for schema in schemas)
    )


def _fault(name: str, value: object, expected: str, remedy: str) -> Fault:
    return Fault(kind=ProblemKind.SCHEMA, path=name, found=shown(value), expected=expected, remedy=remedy)
