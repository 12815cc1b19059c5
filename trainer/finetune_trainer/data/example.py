"""A row of training data after reading: one of three shapes, with the place it came from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands: the user's own file name and line, for messages."""

    file: str
    line: int


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
