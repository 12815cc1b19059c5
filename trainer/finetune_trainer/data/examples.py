"""Examples: rows of training data after reading.

Each is a text, a prompt with its completion, or a conversation; or a pair of two such that answer the same prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.contract.preflight_report import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLocation:
    """The place of a row in the data, for messages.

    Attributes:
        file: name of the file, as the user knows it.
        line: number of the line or row, from 1.
        unit: what `line` counts.
    """

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
        content: the text; None for an assistant's turn with only tool calls.
        more: further keys for the chat template (`tool_calls`, `name` …); None if there are none.
        trained: whether the turn is trained, if it is the assistant's and `dataset.loss` trains such turns.
    """

    role: str
    content: str | None
    more: Mapping[str, Any] | None = None
    trained: bool = True

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The tool calls of the turn, each a JSON object `{"function": {"name": …, "arguments": …}}`."""
        return self.more.get("tool_calls", ()) if self.more else ()


@dataclass(frozen=True, slots=True)
class Messages:
    """The input of a chat template.

    Attributes:
        turns: the turns.
        tools: the tools that the assistant may call: JSON objects `{"type": "function", "function": {"name": …}}`.
    """

    turns: tuple[Message, ...]
    tools: Sequence[Mapping[str, Any]] = ()

    @property
    def answers(self) -> list[int]:
        """Indices of the assistant's turns."""
        return [index for index, message in enumerate(self.turns) if message.role == "assistant"]

    @property
    def characters(self) -> int:
        """Length of all texts, tools included, in characters."""
        beside = len(str(self.tools)) if self.tools else 0
        return beside + sum(len(turn.content or "") + (len(str(turn.more)) if turn.more else 0) for turn in self.turns)

    def before(self, turn: int) -> "Messages":
        """The messages before the turn with this index, with the tools."""
        return Messages(self.turns[:turn], self.tools)

    def with_turn(self, message: Message) -> "Messages":
        """The messages with one more turn at the end."""
        return Messages((*self.turns, message), self.tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A running text. All of its tokens are trained."""

    place: RowLocation
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCompletion:
    """A prompt and its completion, both plain text."""

    place: RowLocation
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation with at least one turn of the assistant."""

    place: RowLocation
    messages: Messages


SupervisedExample = Text | PromptCompletion | Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """A pair: two answers to one prompt, of which one is better.

    Attributes:
        place: the row.
        chosen: the prompt with the better answer. Of a conversation, the turns of the answer are marked as trained.
        rejected: the prompt with the worse answer.
    """

    place: RowLocation
    chosen: SupervisedExample
    rejected: SupervisedExample


Example = SupervisedExample | Preference
