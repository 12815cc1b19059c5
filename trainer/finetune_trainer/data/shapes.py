"""The shapes that a row can have: how each is recognised, checked and turned into an example.

`key` runs once a row: one look at each text finds it sound and tells it apart from others. Only a row that has no key
is looked at again, by `faults`, for the words. `build` is for rows without faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from finetune_trainer.contract.recipe.dataset import FIELDS_OF, DatasetSchema, Fields
from finetune_trainer.data.columns import Columns, texts_misdeclared, turns_misdeclared
from finetune_trainer.data.example import Conversation, Example, Message, Place, PromptCompletion, Text
from finetune_trainer.data.problems import Fault, ProblemKind, keys_shown, shown
from finetune_trainer.data.text_check import sound, text_fault

Row = dict[str, object]

ROLES: Final = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    # ShareGPT's words
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
}
"""What stands in the data -> the role."""
_ANSWERS: Final = {word: role == "assistant" for word, role in ROLES.items()}
_TOOL_KEYS = ("tool_calls", "function_call")


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
        """See `Shape`."""
        return row.get(self.prompt) is not None and row.get(self.completion) is not None

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
    """Instruction, optional input, output. Becomes a conversation, so that training and serving share one template."""

    instruction: str
    input: str
    output: str
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
        return texts_misdeclared(columns, [self.instruction, self.output], optional=[self.input])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`."""
        faults = _column_faults(row, (self.instruction, self.output))
        context = row.get(self.input)
        if context is not None and (fault := text_fault(context, self.input, may_be_empty=True)):
            faults.append(fault)
        return faults

    def key(self, row: Row) -> int | None:
        """See `Shape`."""
        instruction, output = sound(row.get(self.instruction)), sound(row.get(self.output))
        given = row.get(self.input)
        context = "" if given is None or given == "" else sound(given)
        if instruction is None or output is None or context is None:
            # Only the input may be blank.
            return None if self.faults(row) else hash((instruction, given, output))
        return hash((instruction, context, output))

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`. Instruction and input become one user turn, a blank line between them."""
        asked, context = _text(row[self.instruction]), _text(row.get(self.input) or "")
        if context.strip():
            asked = f"{asked}\n\n{context}"
        answer = Message(role="assistant", content=_text(row[self.output]))
        return Conversation(place=place, messages=(Message(role="user", content=asked), answer))


@dataclass(frozen=True, slots=True)
class MessagesShape:
    """A column with a list of turns. Their order is the chat template's matter; an assistant's turn there must be."""

    column: str
    role: str
    content: str
    schema: DatasetSchema

    @property
    def columns(self) -> str:
        """Its column and the turns' keys."""
        return f"{self.column} with {self.role} and {self.content}"

    def fits(self, row: Row) -> bool:
        """See `Shape`. A list without turns fits every pair of keys."""
        turns = row.get(self.column)
        if turns is None:
            return False
        first = turns[0] if isinstance(turns, list) and turns else None
        return not isinstance(first, dict) or self.role in first or self.content in first

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `Shape`."""
        return turns_misdeclared(columns, self.column, self.role, self.content)

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `Shape`."""
        turns = row.get(self.column)
        if turns is None:
            return [_absent(row, self.column)]
        if not isinstance(turns, list) or not turns:
            kind = ProblemKind.TYPE if not isinstance(turns, list) else ProblemKind.EMPTY
            remedy = f'write [{{"{self.role}": …, "{self.content}": …}}, …], or remove the row'
            if isinstance(turns, str) and turns.lstrip().startswith("["):
                remedy = "the turns are JSON inside a text: write the list itself (json.loads)"
            return [
                Fault(kind=kind, path=self.column, found=shown(turns), expected="a list of messages", remedy=remedy)
            ]
        faults = [fault for index, turn in enumerate(turns) for fault in self._turn_faults(turn, index)]
        roles = [turn.get(self.role) for turn in turns if isinstance(turn, dict)]
        unknown = any(fault.kind is ProblemKind.ROLE for fault in faults)  # perhaps it is the assistant's
        if not unknown and not any(isinstance(role, str) and ROLES.get(role) == "assistant" for role in roles):
            faults.append(
                Fault(
                    kind=ProblemKind.NO_ANSWER,
                    path=self.column,
                    found=f"{len(turns)} messages, none of the assistant",
                    expected="at least one message of the assistant: it is what is trained",
                    remedy="remove the row, or add the answer",
                )
            )
        if row.get("tools"):
            faults.append(_tools("tools"))
        return faults

    def key(self, row: Row) -> int | None:
        """See `Shape`. Two words for one role make two rows."""
        answered = False
        role_key, content_key, answers = self.role, self.content, _ANSWERS
        parts: list[str | bytes] = []
        try:
            for turn in row[self.column]:  # type: ignore[attr-defined]
                role = turn[role_key]
                if answers[role]:
                    answered = True
                content = sound(turn[content_key])
                if content is None or len(turn) != 2:
                    return self._careful_key(row)
                parts += role, content
        except (KeyError, TypeError):
            return None
        return hash(tuple(parts)) if answered and "tools" not in row else self._careful_key(row)

    def build(self, row: Row, place: Place) -> Example:
        """See `Shape`."""
        turns = row[self.column]
        assert isinstance(turns, list)
        messages = tuple(Message(role=ROLES[turn[self.role]], content=turn[self.content]) for turn in turns)
        return Conversation(place=place, messages=messages)

    def _careful_key(self, row: Row) -> int | None:
        """The key of a row with more in it than two keys a turn: that may be a fault or not."""
        if self.faults(row):
            return None
        turns = row[self.column]
        assert isinstance(turns, list)
        return hash(tuple(part for turn in turns for part in (turn[self.role], sound(turn[self.content]))))

    def _turn_faults(self, turn: object, index: int) -> list[Fault]:
        path = f"{self.column}[{index}]"
        if not isinstance(turn, dict):
            expected = f"an object with {self.role} and {self.content}"
            remedy = f'write {{"{self.role}": …, "{self.content}": …}}'
            return [Fault(kind=ProblemKind.TYPE, path=path, found=shown(turn), expected=expected, remedy=remedy)]
        faults = []
        role = turn.get(self.role)
        if not isinstance(role, str) or role not in ROLES:
            found = shown(role) if self.role in turn else f"no {self.role}; keys: {keys_shown(turn)}"
            expected = "system, user, assistant or tool"
            if self.schema is DatasetSchema.SHAREGPT:
                expected = "system, human, gpt or observation"
            faults.append(
                Fault(
                    kind=ProblemKind.ROLE,
                    path=f"{path}.{self.role}",
                    found=found,
                    expected=expected,
                    remedy=_role_remedy(role)
                    if self.role in turn
                    else "name the key of the role in dataset.fields.role",
                )
            )
        calls = [key for key in _TOOL_KEYS if turn.get(key)]
        faults += [_tools(f"{path}.{key}") for key in calls]
        if self.content not in turn:
            faults.append(_absent(turn, self.content, path=f"{path}.{self.content}"))
        elif not calls and (fault := text_fault(turn[self.content], f"{path}.{self.content}")):
            faults.append(fault)
        return faults


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
    every: list[Shape] = [
        MessagesShape(names.messages or "messages", role, content, chat),
        MessagesShape(names.messages or "conversations", speaker, value, gpt),
        MessagesShape(names.messages or "conversations", role, content, chat),
        MessagesShape(names.messages or "messages", speaker, value, gpt),
        PromptShape(names.prompt or "prompt", names.completion or "completion"),
        AlpacaShape(names.instruction or "instruction", names.input or "input", names.output or "output"),
        TextShape(names.text or "text"),
    ]
    if schema is DatasetSchema.AUTO:
        return [shape for shape in every if names.named <= FIELDS_OF[shape.schema]]
    return [shape for shape in every if shape.schema is schema]


def columns_read(fields: Fields | None) -> frozenset[str]:
    """The columns that a row of any schema may be made of, for formats that read columns apart."""
    mapped = (fields or Fields()).model_dump(exclude_none=True).values()
    return frozenset(Fields.model_fields) - {"role", "content"} | {"conversations", "tools"} | frozenset(mapped)


def _column_faults(row: Row, columns: Sequence[str]) -> list[Fault]:
    faults = []
    for column in columns:
        if column not in row:
            faults.append(_absent(row, column))
        elif fault := text_fault(row[column], column):
            faults.append(fault)
    return faults


def _absent(row: Row, column: str, path: str | None = None) -> Fault:
    found = f"the keys {keys_shown(row)}" if row else "an empty object"
    if column in row:
        remedy = "remove the row, or fill it in"
        return Fault(kind=ProblemKind.TYPE, path=path or column, found="null", expected="a value", remedy=remedy)
    return Fault(
        kind=ProblemKind.SCHEMA,
        path=path or column,
        found=found,
        expected=f"the key {column}",
        remedy="every row needs it: rename the key, name it in dataset.fields, or remove the row",
    )


def _role_remedy(role: object) -> str:
    if isinstance(role, str) and role.strip().lower() in ROLES:
        return f"write {role.strip().lower()!r}"
    if role == "developer":
        return "write 'system'"
    return "write the role that it stands for"


def _tools(path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found="tool calls",
        expected="messages with text only",
        remedy="tool calls are not trained by this version: remove the row or write the call into the content",
    )


def _text(value: object) -> str:
    assert isinstance(value, str)
    return value
