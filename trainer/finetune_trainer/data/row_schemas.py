"""The shapes that a row can have: how each is recognised, checked and turned into an example.

`key` runs once a row: one look at each text finds it sound and tells it apart from others. Only a row that has no key
is looked at again, by `faults`, for the words. `build` is for rows without faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, Fields
from finetune_trainer.data.alpaca import AlpacaSchema
from finetune_trainer.data.columns import Columns, texts_misdeclared
from finetune_trainer.data.examples import Example, PromptCompletion, RowLocation, Text
from finetune_trainer.data.messages import MessagesSchema
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.prompt_turns import PromptTurnsSchema
from finetune_trainer.data.records import Row
from finetune_trainer.data.text_check import as_text, column_faults, sound


class RowSchema(Protocol):
    """One shape of rows."""

    @property
    def schema(self) -> DatasetSchema:
        """Its name in the recipe."""
        ...

    @property
    def columns(self) -> str:
        """Its columns, for messages."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """The columns that it may be made of; others are ignored."""
        ...

    def fits(self, row: Row) -> bool:
        """Whether the row has this shape's columns, whatever is in them; null counts as absent."""
        ...

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """What is wrong with every row of a file, by what the file says of its columns."""
        ...

    def faults(self, row: Row) -> Sequence[Fault]:
        """Everything that is wrong with the row."""
        ...

    def key(self, row: Row) -> int | None:
        """Equal for rows that train the same, for different ones by a chance of 2^-64; None for a row with faults."""
        ...

    def build(self, row: Row, place: RowLocation) -> Example:
        """The example that a row without faults is."""
        ...


@dataclass(frozen=True, slots=True)
class TextSchema:
    """One column of running text."""

    column: str
    schema: DatasetSchema = DatasetSchema.TEXT

    @property
    def columns(self) -> str:
        """Its column."""
        return self.column

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.column})

    def fits(self, row: Row) -> bool:
        """See `RowSchema`."""
        return row.get(self.column) is not None

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        return texts_misdeclared(columns, [self.column])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`."""
        return column_faults(row, (self.column,))

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        text = sound(row.get(self.column))
        return None if text is None else hash(text)

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return Text(place=place, text=as_text(row[self.column]))


@dataclass(frozen=True, slots=True)
class PromptSchema:
    """A prompt and its completion in a column each."""

    prompt: str
    completion: str
    schema: DatasetSchema = DatasetSchema.PROMPT_COMPLETION

    @property
    def columns(self) -> str:
        """Its columns."""
        return f"{self.prompt} and {self.completion}"

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.prompt, self.completion})

    def fits(self, row: Row) -> bool:
        """See `RowSchema`. Lists of turns are `PromptTurnsSchema`'s."""
        prompt, completion = row.get(self.prompt), row.get(self.completion)
        listed = isinstance(prompt, list) and isinstance(completion, list)
        return prompt is not None and completion is not None and not listed

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        return texts_misdeclared(columns, [self.prompt, self.completion])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`. A prompt may end in blanks: prompt and completion are tokenised apart (see `tokenize`)."""
        return column_faults(row, (self.prompt, self.completion))

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        prompt, completion = sound(row.get(self.prompt)), sound(row.get(self.completion))
        return None if prompt is None or completion is None else hash((prompt, completion))

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return PromptCompletion(place=place, prompt=as_text(row[self.prompt]), completion=as_text(row[self.completion]))


def row_schemas(schema: DatasetSchema, fields: Fields | None) -> list[RowSchema]:
    """The shapes that rows may have, the richer one first: a row with messages and text is a conversation.

    Args:
        schema: `dataset.schema`; auto leaves all of them that have every part which `fields` names.
        fields: `dataset.fields`.
    """
    names = fields or Fields()
    chat, gpt = DatasetSchema.MESSAGES, DatasetSchema.SHAREGPT
    role, content = names.role or "role", names.content or "content"
    speaker, value = names.role or "from", names.content or "value"
    system = names.system or "system"
    every: list[RowSchema] = [
        MessagesSchema(names.messages or "messages", role, content, chat, system),
        MessagesSchema(names.messages or "conversations", speaker, value, gpt, system),
        MessagesSchema(names.messages or "conversations", role, content, chat, system),
        MessagesSchema(names.messages or "messages", speaker, value, gpt, system),
        PromptSchema(names.prompt or "prompt", names.completion or "completion"),
        PromptTurnsSchema(names.prompt or "prompt", names.completion or "completion", role, content, system),
        AlpacaSchema(names.instruction or "instruction", names.input or "input", names.output or "output", system),
        TextSchema(names.text or "text"),
    ]
    if schema is DatasetSchema.AUTO:
        return [row_schema for row_schema in every if names.named <= FIELDS_OF[row_schema.schema]]
    return [row_schema for row_schema in every if row_schema.schema is schema]


def columns_read(fields: Fields | None) -> frozenset[str]:
    """The columns that a row of any schema may be made of, for formats that read columns apart."""
    every = {*row_schemas(DatasetSchema.AUTO, fields), *row_schemas(DatasetSchema.AUTO, None)}
    return frozenset(column for row_schema in every for column in row_schema.reads)
