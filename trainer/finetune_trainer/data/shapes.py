"""The shapes that a row can have: how each is recognised, checked and turned into an example.

`key` runs once a row: one look at each text finds it sound and tells it apart from others. Only a row that has no key
is looked at again, by `faults`, for the words. `build` is for rows without faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, Fields
from finetune_trainer.data.alpaca import AlpacaShape
from finetune_trainer.data.columns import Columns, texts_misdeclared
from finetune_trainer.data.example import Example, Place, PromptCompletion, Text
from finetune_trainer.data.messages import MessagesShape
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.prompt_turns import PromptTurnsShape
from finetune_trainer.data.records import Row
from finetune_trainer.data.text_check import as_text, column_faults, sound


class Shape(Protocol):
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

    def build(self, row: Row, place: Place) -> Example:
        """The example that a row without faults is."""
        ...


@dataclass(frozen=True, slots=True)
class TextShape:
    """One column of running text."""

    column: str
    schema: DatasetSchema = DatasetSchema.TEXT

    @property
    def columns(self) -> str:
        """Its column."""
        return self.column

    @property
    def reads(self) -> frozenset[str]:
        """See `Shape`."""
        return frozenset({self.column})

    def fits(self, row: Row) -> bool:
        """See `Shape`."""
        return row.get(self.column) is not None

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `Shape`."""
        return texts_misdeclared(columns, [self.column])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`."""
        return column_faults(row, (self.column,))

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        text = sound(row.get(self.column))
        return None if text is None else hash(text)

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`."""
        return Text(place=place, text=as_text(row[self.column]))


@dataclass(frozen=True, slots=True)
class PromptShape:
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
        """See `Shape`."""
        return frozenset({self.prompt, self.completion})

    def fits(self, row: Row) -> bool:
        """See `Shape`. Lists of turns are `PromptTurnsShape`'s."""
        prompt, completion = row.get(self.prompt), row.get(self.completion)
        listed = isinstance(prompt, list) and isinstance(completion, list)
        return prompt is not None and completion is not None and not listed

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `Shape`."""
        return texts_misdeclared(columns, [self.prompt, self.completion])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`. A prompt may end in blanks: prompt and completion are tokenised apart (see `tokenize`)."""
        return column_faults(row, (self.prompt, self.completion))

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        prompt, completion = sound(row.get(self.prompt)), sound(row.get(self.completion))
        return None if prompt is None or completion is None else hash((prompt, completion))

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`."""
        return PromptCompletion(place=place, prompt=as_text(row[self.prompt]), completion=as_text(row[self.completion]))


def shapes(schema: DatasetSchema, fields: Fields | None) -> list[Shape]:
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
    every: list[Shape] = [
        MessagesShape(names.messages or "messages", role, content, chat, system),
        MessagesShape(names.messages or "conversations", speaker, value, gpt, system),
        MessagesShape(names.messages or "conversations", role, content, chat, system),
        MessagesShape(names.messages or "messages", speaker, value, gpt, system),
        PromptShape(names.prompt or "prompt", names.completion or "completion"),
        PromptTurnsShape(names.prompt or "prompt", names.completion or "completion", role, content, system),
        AlpacaShape(names.instruction or "instruction", names.input or "input", names.output or "output", system),
        TextShape(names.text or "text"),
    ]
    if schema is DatasetSchema.AUTO:
        return [shape for shape in every if names.named <= FIELDS_OF[shape.schema]]
    return [shape for shape in every if shape.schema is schema]


def columns_read(fields: Fields | None) -> frozenset[str]:
    """The columns that a row of any schema may be made of, for formats that read columns apart."""
    every = {*shapes(DatasetSchema.AUTO, fields), *shapes(DatasetSchema.AUTO, None)}
    return frozenset(column for shape in every for column in shape.reads)
