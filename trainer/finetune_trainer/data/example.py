"""A row of training data after reading: one of three shapes, with the place it came from."""

from dataclasses import dataclass

from finetune_trainer.contract.preflight_report import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands, for messages: the user's own file name and the line, or what else is counted there."""

    file: str
    line: int
    unit: Unit = Unit.LINE

    def __str__(self) -> str:
        return self.unit.place(self.file, self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Running text, trained whole."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCompletion:
    """A prompt and what should follow it, both plain text."""

    place: Place
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A list of messages with at least one of the assistant."""

    place: Place
    messages: tuple[Message, ...]


Example = Text | PromptCompletion | Conversation
