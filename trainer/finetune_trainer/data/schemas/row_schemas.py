"""The schemas of rows: how a schema is recognised in a row, how the row is checked, and how it becomes an example.

`key` is called for every row. It checks the row and computes its key in one pass over the texts. `faults` is called
only for a row that has no key, to describe what is wrong. `build` is called only for rows without faults.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, Fields
from finetune_trainer.data.examples import Example, PromptCompletion, RowLocation, Text
from finetune_trainer.data.formats.columns import Columns, texts_misdeclared
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.schemas.alpaca import AlpacaSchema
from finetune_trainer.data.schemas.messages import MessagesSchema
from finetune_trainer.data.schemas.prompt_turns import PromptTurnsSchema
from finetune_trainer.data.schemas.text_check import as_text, column_faults, text_key


class RowSchema(Protocol):
    """One schema of rows."""

    @property
    def schema(self) -> DatasetSchema:
        """Its name in the recipe."""
        ...

    @property
    def columns(self) -> str:
        """The names of its columns, for messages."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """The columns that the schema may read."""
        ...

    @property
    def unread(self) -> Collection[str]:
        """Key paths inside those columns that rows had so far and that are not read: `messages[].id`."""
        ...

    def fits(self, row: Row) -> bool:
        """Whether the row has the schema's columns, with any values except null."""
        ...

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """The faults of the column types that a file declares: each would be a fault of every row."""
        ...

    def faults(self, row: Row) -> Sequence[Fault]:
        """All faults of the row."""
        ...

    def key(self, row: Row) -> int | None:
        """The hash of what the row trains, in 64 bits; None for a row with faults.

        Rows that train the same have equal keys. Two different rows have equal keys with a probability of 2^-64.
        """
        ...

    def build(self, row: Row, place: RowLocation) -> Example:
        """The example of a row without faults.

        Args:
            row: the row.
            place: its location.
        """
        ...


@dataclass(frozen=True, slots=True)
class TextSchema:
    """The schema of rows with one column of running text."""

    column: str
    schema: DatasetSchema = DatasetSchema.TEXT

    @property
    def columns(self) -> str:
        """See `RowSchema`."""
        return self.column

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.column})

    @property
    def unread(self) -> Collection[str]:
        """See `RowSchema`."""
        return ()

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
        text = text_key(row.get(self.column))
        return None if text is None else hash(text)

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return Text(place=place, text=as_text(row[self.column]))


@dataclass(frozen=True, slots=True)
class PromptSchema:
    """The schema of rows with a prompt and a completion, each a text."""

    prompt: str
    completion: str
    schema: DatasetSchema = DatasetSchema.PROMPT_COMPLETION

    @property
    def columns(self) -> str:
        """See `RowSchema`."""
        return f"{self.prompt} and {self.completion}"

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.prompt, self.completion})

    @property
    def unread(self) -> Collection[str]:
        """See `RowSchema`."""
        return ()

    def fits(self, row: Row) -> bool:
        """See `RowSchema`. Lists of turns belong to `PromptTurnsSchema`."""
        prompt, completion = row.get(self.prompt), row.get(self.completion)
        listed = isinstance(prompt, list) and isinstance(completion, list)
        return prompt is not None and completion is not None and not listed

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        return texts_misdeclared(columns, [self.prompt, self.completion])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`. A prompt may end in blanks: it keeps its own tokens (see `tokenize`)."""
        return column_faults(row, (self.prompt, self.completion))

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        prompt, completion = text_key(row.get(self.prompt)), text_key(row.get(self.completion))
        return None if prompt is None or completion is None else hash((prompt, completion))

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return PromptCompletion(place=place, prompt=as_text(row[self.prompt]), completion=as_text(row[self.completion]))


def row_schemas(schema: DatasetSchema, fields: Fields | None) -> list[RowSchema]:
    """The schemas that rows may have, in the order in which they are tried.

    Schemas with more structure come first: a row with messages and text is a conversation.

    Args:
        schema: `dataset.schema`. For `auto` the result has every schema with all the parts that `fields` names.
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
