"""A row of training data after reading: one of three shapes, with its location."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.contract.preflight_report import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLocation:
    """Where a row stands, for messages: the user's own file name and the line, or what else is counted there."""

    file: str
    line: int
    unit: Unit = Unit.LINE

    def __str__(self) -> str:
        return self.unit.place(self.file, self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, user, assistant or tool.
        content: its text; None where an assistant's turn is tool calls and nothing else.
        more: what a chat template is given besides, by the names that templates know: `tool_calls`, `name` ….
        trained: whether an assistant's turn is trained, where such turns are.
    """

    role: str
    content: str | None
    more: Mapping[str, Any] | None = None
    trained: bool = True

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The tools that the turn calls."""
        return self.more.get("tool_calls", ()) if self.more else ()


@dataclass(frozen=True, slots=True)
class Messages:
    """What a chat template is given.

    Attributes:
        turns: the turns.
        tools: what the assistant may call, each as a JSON object `{"type": "function", "function": {"name": …}}`.
    """

    turns: tuple[Message, ...]
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def answers(self) -> list[int]:
        """Which of the turns are the assistant's."""
        return [index for index, message in enumerate(self.turns) if message.role == "assistant"]

    @property
    def characters(self) -> int:
        """How long its texts are."""
        beside = len(str(self.tools)) if self.tools else 0
        return beside + sum(len(turn.content or "") + (len(str(turn.more)) if turn.more else 0) for turn in self.turns)

    def before(self, turn: int) -> "Messages":
        """The messages before a turn."""
        return Messages(self.turns[:turn], self.tools)

    def with_turn(self, message: Message) -> "Messages":
        """The messages with one more turn."""
        return Messages((*self.turns, message), self.tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Running text, trained whole."""

    place: RowLocation
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCompletion:
    """A prompt and what should follow it, both plain text."""

    place: RowLocation
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages with at least one of the assistant."""

    place: RowLocation
    messages: Messages


Example = Text | PromptCompletion | Conversation
