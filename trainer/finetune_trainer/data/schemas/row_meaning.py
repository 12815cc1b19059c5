"""Columns and keys that are not read: those that change what a row means are refused, the others are named.

A row whose answer is the worse one of two, or that asks about an image, has a text that can be trained. The result
would be wrong, and nothing would say so.
"""

import re
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.data.formats.records import ExpectedRows, Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.candidates import known_schemas
from finetune_trainer.data.schemas.preference import PreferenceSchema
from finetune_trainer.data.schemas.row_schemas import RowSchema

_PREFERENCE: Final = re.compile(
    r"(chosen|rejected)(_\w+)?|\w+_(chosen|rejected)|(non_)?preferred_output|kto_tag", re.IGNORECASE
)
_LABEL: Final = "label"
"""KTO's column of a bool: whether the answer is a good one. Other labels are classes, and only named."""
_MEDIA: Final = frozenset({"image", "images", "audio", "audios", "video", "videos"})
_ANSWERS: Final = frozenset({"answer", "answers", "completion", "output", "response"})
"""Columns that hold what a model should say, beside a column of running text."""
_SYSTEM: Final = frozenset({"system_prompt", "system_message"})
"""Columns that hold a system message under another name than the schema's."""
_WEIGHT: Final = "weight"
"""Fireworks' column of a number with which the row counts."""
_SPLIT: Final = "split"
"""Predibase's column of the part of the data to which the row belongs."""
_HELD_OUT: Final = frozenset({"test", "validation", "valid", "val", "eval", "evaluation", "dev"})
_TEMPLATE: Final = "chat_template_kwargs"
"""TRL's column of a row's own variables for the chat template: tools, instructions, switches."""
_ROLE: Final = "role"
_BY_VALUE: Final = frozenset({*_SYSTEM, _WEIGHT, _SPLIT, _TEMPLATE, _ROLE})
_PROMPTS: Final = frozenset({"context", "history", "input", "instruction", "query", "question", "system"})
"""Columns that hold what two answers of a pair are answers to."""
_BESIDE_DIALOGUES: Final = frozenset({"context", "history", "system"})
"""Those of them that may say what whole dialogues do not say."""
_MEANINGFUL: Final = frozenset(
    {"chosen", "rejected", "rejected_response", "kto_tag", _LABEL, *_MEDIA, *_ANSWERS, *_BY_VALUE}
)
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
        pairs = row_schema.schema is DatasetSchema.PREFERENCE
        self._takes_preference = pairs or any(_PREFERENCE.fullmatch(name) for name in self._decided)
        self._row_schema = row_schema
        named = dataset.schema_ is DatasetSchema.TEXT or (fields is not None and fields.text is not None)
        self._takes_text = named
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
        if self._is_prompt(name):
            return True
        if _PREFERENCE.fullmatch(name) or name == _LABEL:
            return not self._takes_preference
        if name in _BY_VALUE:
            return True
        return name.lower() in _MEDIA or (self._looks_for_answers and name.lower() in _ANSWERS)

    def _is_prompt(self, name: str) -> bool:
        if not isinstance(self._row_schema, PreferenceSchema):
            return False
        return name.lower() in (_BESIDE_DIALOGUES if self._row_schema.is_whole else _PROMPTS)

    def _fault(self, name: str, row: Row) -> Fault | None:
        value = row[name]
        # A row without the schema's columns has another fault.
        if value is None or value == "" or value == [] or not self._row_schema.fits(row):
            return None
        if name in _BY_VALUE:
            return self._fault_of_value(name, row)
        if name == _LABEL and not isinstance(value, bool):
            return None
        if self._is_prompt(name):
            return _fault(
                name,
                value,
                "the whole prompt of a pair in the columns that are read: the answers would be compared without this",
                f"map it, perhaps with dataset.fields: {{prompt: {name}}}, or name the column in "
                "dataset.ignoredColumns",
            )
        if _PREFERENCE.fullmatch(name) or name == _LABEL:
            return _fault(
                name,
                value,
                "rows with one answer, the good one: this is preference data, which says which answer is better or "
                "worse",
                "use method: dpo for pairs; or map the good answer with dataset.fields, or name the column in "
                "dataset.ignoredColumns",
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

    def _fault_of_value(self, name: str, row: Row) -> Fault | None:
        """The fault of a column that changes the row's meaning with some values."""
        value, schema = row[name], self._row_schema.schema
        chat = schema in (DatasetSchema.MESSAGES, DatasetSchema.SHAREGPT)
        ignored = "or name the column in dataset.ignoredColumns"
        if name in _SYSTEM:
            if not (chat or schema is DatasetSchema.ALPACA) or not isinstance(value, str) or _has_system_turn(row):
                return None
            expected = "no system message in a column that is not read: the model would not see it"
            return _fault(name, value, expected, f"dataset.fields: {{system: {name}}}, {ignored}")
        if name == _WEIGHT and isinstance(value, int | float) and value != 1:
            expected = "rows that count alike"
            return _fault(name, value, expected, f"remove the rows that are not to be trained, {ignored}")
        if name == _SPLIT and isinstance(value, str) and value.strip().lower() in _HELD_OUT:
            expected = "training rows"
            return _fault(
                name, value, expected, f"write these rows to a file of their own (dataset.validation), {ignored}"
            )
        if name == _TEMPLATE and chat and isinstance(value, dict) and any(map(_says, value.values())):
            expected = "no variables for the chat template in a row: they are not given to it"
            return _fault(
                name, value, expected, f"write tools and instructions into the row's columns and turns, {ignored}"
            )
        if name == _ROLE and schema is DatasetSchema.TEXT and not self._takes_text:
            expected = "a text that stands for itself: this row is one turn of a conversation"
            return _fault(
                name, value, expected, 'write conversations, {"messages": [{"role": …, "content": …}, …]}, ' + ignored
            )
        return None


def _says(value: object) -> bool:
    return value not in (None, "", [], {})


def _has_system_turn(row: Row) -> bool:
    """Whether the first turn of a list in the row is a system message."""
    first = (value[0] for value in row.values() if isinstance(value, list) and value)
    return any(
        isinstance(turn, dict) and not {"system", "developer"}.isdisjoint(map(str, turn.values())) for turn in first
    )


def is_preference(column: str) -> bool:
    """Whether a column of this name says which answer is better or worse."""
    return _PREFERENCE.fullmatch(column) is not None


def columns_read(dataset: DatasetSpec) -> frozenset[str]:
    """The columns whose values are looked at, for formats in which columns are read separately."""
    every = [*known_schemas(dataset, dataset.fields), *known_schemas(dataset, None)]
    meaningful = _MEANINGFUL | _PROMPTS if dataset.schema_ is DatasetSchema.PREFERENCE else _MEANINGFUL
    return meaningful.union(*(row_schema.reads for row_schema in every))


def expected_rows(dataset: DatasetSpec) -> ExpectedRows:
    """What the readers of formats know of the rows of a data set."""
    schemas = known_schemas(dataset, dataset.fields)
    return ExpectedRows(columns=columns_read(dataset), is_row=lambda row: any(schema.fits(row) for schema in schemas))


def _fault(name: str, value: object, expected: str, remedy: str) -> Fault:
    return Fault(kind=ProblemKind.SCHEMA, path=name, found=shown(value), expected=expected, remedy=remedy)
