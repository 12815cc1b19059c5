"""The shapes that a row can have: how each is recognised, checked and turned into an example.

`key` runs once a row: one look at each text finds it sound and tells it apart from others. Only a row that has no key
is looked at again, by `faults`, for the words. `build` is for rows without faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, Fields
from finetune_trainer.data.columns import Columns, texts_misdeclared
from finetune_trainer.data.example import Conversation, Example, Message, Place, PromptCompletion, Talk, Text
from finetune_trainer.data.messages import MessagesShape
from finetune_trainer.data.problems import Fault, absent_key
from finetune_trainer.data.prompt_turns import PromptTurnsShape
from finetune_trainer.data.records import Row
from finetune_trainer.data.text_check import sound, text_fault
from finetune_trainer.data.tool_calls import TOOLS


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

    def fits(self, row: Row) -> bool:
        """See `Shape`."""
        return row.get(self.column) is not None

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `Shape`."""
        return texts_misdeclared(columns, [self.column])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`."""
        return _column_faults(row, (self.column,))

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        text = sound(row.get(self.column))
        return None if text is None else hash(text)

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`."""
        return Text(place=place, text=_text(row[self.column]))


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
        return _column_faults(row, (self.prompt, self.completion))

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        prompt, completion = sound(row.get(self.prompt)), sound(row.get(self.completion))
        return None if prompt is None or completion is None else hash((prompt, completion))

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`."""
        return PromptCompletion(place=place, prompt=_text(row[self.prompt]), completion=_text(row[self.completion]))


@dataclass(frozen=True, slots=True)
class AlpacaShape:
    """Instruction, input if any, output, system message if any.

    Becomes a conversation, so that training and serving share one template.
    """

    instruction: str
    input: str
    output: str
    system: str = "system"
    schema: DatasetSchema = DatasetSchema.ALPACA

    @property
    def columns(self) -> str:
        """Its columns."""
        return f"{self.instruction} and {self.output}"

    def fits(self, row: Row) -> bool:
        """See `Shape`."""
        return row.get(self.instruction) is not None and row.get(self.output) is not None

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `Shape`."""
        return texts_misdeclared(columns, [self.instruction, self.output], optional=[self.input, self.system])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`."""
        faults = _column_faults(row, (self.instruction, self.output))
        for column in (self.input, self.system):
            given = row.get(column)
            if given is not None and (fault := text_fault(given, column, may_be_empty=True)):
                faults.append(fault)
        return faults

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        instruction, output = sound(row.get(self.instruction)), sound(row.get(self.output))
        given = row.get(self.input)
        context = "" if given is None or given == "" else sound(given)
        if instruction is None or output is None or context is None or row.get(self.system) is not None:
            # Only the input and the system message may be blank.
            return None if self.faults(row) else hash((instruction, given, output, row.get(self.system)))
        return hash((instruction, context, output))

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`. Instruction and input become one user turn, a blank line between them."""
        asked, context = _text(row[self.instruction]), _text(row.get(self.input) or "")
        if context.strip():
            asked = f"{asked}\n\n{context}"
        talk = Message(role="user", content=asked), Message(role="assistant", content=_text(row[self.output]))
        system = _text(row.get(self.system) or "")
        before = (Message(role="system", content=system),) if system.strip() else ()
        return Conversation(place=place, talk=Talk((*before, *talk)))


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
    mapped = (fields or Fields()).model_dump(exclude_none=True).values()
    return frozenset(Fields.model_fields) - {"role", "content"} | {"conversations", *TOOLS} | frozenset(mapped)


def _column_faults(row: Row, columns: Sequence[str]) -> list[Fault]:
    faults = []
    for column in columns:
        if column not in row:
            faults.append(absent_key(row, column))
        elif fault := text_fault(row[column], column):
            faults.append(fault)
    return faults


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value
