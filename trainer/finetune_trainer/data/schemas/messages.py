"""The schema of rows of messages: a column with a list of turns, and optionally tools and a system message."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from finetune_trainer.contract.recipe.dataset import DatasetSchema
from finetune_trainer.data.examples import Conversation, Example, Message, Messages, RowLocation
from finetune_trainer.data.formats.columns import Columns, turns_misdeclared
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, absent_key, shown
from finetune_trainer.data.schemas.text_check import text_fault, text_key
from finetune_trainer.data.schemas.tool_calls import Tools, tools_of, without_padded_arguments
from finetune_trainer.data.schemas.turn import CALLING, ROLES, TurnKeys, system_turn
from finetune_trainer.data.tool_columns import TOOLS

_ANSWERS: Final = {word: role == "assistant" for word, role in ROLES.items()}


@dataclass(frozen=True, slots=True)
class MessagesSchema:
    """Rows with a list of turns, at least one of them the assistant's. The chat template checks the turns' order.

    Attributes:
        column: the column of the turns.
        role: the key of a turn's role.
        content: the key of a turn's text.
        schema: the name of the schema in the recipe.
        system: the column of a system message.
    """

    column: str
    role: str
    content: str
    schema: DatasetSchema
    system: str = "system"
    unread: dict[str, None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def columns(self) -> str:
        """See `RowSchema`. The text also has the turns' keys."""
        return f"{self.column} with {self.role} and {self.content}"

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.column, self.system, *TOOLS})

    def fits(self, row: Row) -> bool:
        """See `RowSchema`. An empty list fits for every pair of keys."""
        turns = row.get(self.column)
        if turns is None:
            return False
        first = turns[0] if isinstance(turns, list) and turns else None
        return not isinstance(first, dict) or self.role in first or self.content in first

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        return turns_misdeclared(columns, self.column, self.role, self.content)

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`."""
        return self._looked_at(row)[2]

    def _looked_at(self, row: Row) -> tuple[list[Message | None], Tools, list[Fault]]:
        """The turns, the tools, and the faults of the row."""
        turns = row.get(self.column)
        if turns is None:
            return [], [], [absent_key(row, self.column)]
        if not isinstance(turns, list) or not turns:
            return [], [], [self._no_turns(turns)]
        keys = self._keys
        read = [keys.read(turn, f"{self.column}[{index}]") for index, turn in enumerate(turns)]
        faults = [fault for _, wrong in read for fault in wrong]
        roles = [turn.get(self.role) for turn in turns if isinstance(turn, dict)]
        unknown = any(fault.kind is ProblemKind.ROLE for fault in faults)  # that turn may be the assistant's
        answers = any(isinstance(role, str) and (_ANSWERS.get(role) or role == CALLING) for role in roles)
        if not unknown and not answers:
            faults.append(
                Fault(
                    kind=ProblemKind.NO_ANSWER,
                    path=self.column,
                    found=f"{len(turns)} messages, none of the assistant",
                    expected="at least one message of the assistant: it is what is trained",
                    remedy="remove the row, or add the answer",
                )
            )
        tools, wrong = tools_of(row)
        return [message for message, _ in read], tools, [*faults, *wrong, *self._system_faults(row, turns[0])]

    def key(self, row: Row) -> int | None:
        """See `RowSchema`. Two rows with different names for the same role have different keys."""
        answered = False
        role_key, content_key, answers = self.role, self.content, _ANSWERS
        parts: list[str | bytes] = []
        try:
            for turn in row[self.column]:  # type: ignore[attr-defined]
                role = turn[role_key]
                if answers[role]:
                    answered = True
                content = text_key(turn[content_key])
                if content is None or len(turn) != 2:
                    return self._careful_key(row)
                parts += role, content
        except (KeyError, TypeError):
            return self._careful_key(row)
        plain = answered and not any(map(row.get, TOOLS)) and row.get(self.system) is None
        return hash(tuple(parts)) if plain else self._careful_key(row)

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return Conversation(place=place, messages=self.messages(row))

    def messages(self, row: Row) -> Messages:
        """The messages of a row without faults, for a chat template."""
        content = row[self.column]
        assert isinstance(content, list)
        turns = [self._message(turn, index) for index, turn in enumerate(content)]
        tools = tuple(tools_of(row)[0])
        return Messages((*system_turn(row, self.system), *without_padded_arguments(turns, tools)), tools)

    def _message(self, turn: dict[str, Any], index: int) -> Message:
        """The message of a turn without faults. The common case is fast: a turn with only role and content."""
        role, content = turn[self.role], turn.get(self.content)
        if len(turn) == 2 and isinstance(content, str) and role in ROLES:
            return Message(role=ROLES[role], content=content)
        message, _ = self._keys.read(turn, f"{self.column}[{index}]")
        assert message is not None
        return message

    def _careful_key(self, row: Row) -> int | None:
        """The key of a row whose turns are not all a role and a text; None if the row has faults."""
        messages, tools, faults = self._looked_at(row)
        if faults:
            return None
        parts: list[str | bytes | None] = []
        for turn, message in zip(cast("list[dict[str, str]]", row[self.column]), messages, strict=True):
            assert message is not None
            parts += turn[self.role], text_key(message.content)
            if message.more or not message.trained:
                parts.append(repr((message.more, message.trained)))
        if tools:
            parts.append(repr(tools))
        if row.get(self.system):
            parts.append(f"system: {row[self.system]}")
        return hash(tuple(parts))

    @property
    def _keys(self) -> TurnKeys:
        roles = "system, user, assistant or tool"
        if self.schema is DatasetSchema.SHAREGPT:
            roles = "system, human, gpt, function_call or observation"
        return TurnKeys(self.role, self.content, roles, self.unread)

    def _no_turns(self, turns: object) -> Fault:
        remedy = f'write [{{"{self.role}": …, "{self.content}": …}}, …], or remove the row'
        if isinstance(turns, str) and turns.lstrip().startswith("["):
            remedy = "the turns are JSON inside a text: write the list itself (json.loads)"
        return Fault(
            kind=ProblemKind.TYPE if not isinstance(turns, list) else ProblemKind.EMPTY,
            path=self.column,
            found=shown(turns),
            expected="a list of messages",
            remedy=remedy,
        )

    def _system_faults(self, row: Row, first: object) -> list[Fault]:
        """The faults of the column with a system message."""
        given = row.get(self.system)
        if given is None or given == "":
            return []
        if fault := text_fault(given, self.system, may_be_empty=True):
            return [fault]
        if isinstance(first, dict) and ROLES.get(str(first.get(self.role))) == "system":
            return [
                Fault(
                    kind=ProblemKind.TYPE,
                    path=self.system,
                    found=f"{shown(given)}, and a turn of the role system",
                    expected="one system message",
                    remedy="remove one of the two, or name another column in dataset.fields.system",
                )
            ]
        return []
