"""What a chat template writes around the contents of a conversation.

The contents are replaced by placeholders, and the conversation is rendered. What stands between the placeholders is the
template's own text. The same text around the real contents says where each of them stands.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune_trainer.data.examples import Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.chat import ChatTemplate, Span

PLACEHOLDER = "FINETUNEPLACEHOLDER{}X"
"""What no row says: stands for a text or a name whose place in a rendered text is looked for."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A conversation's text without some of its contents.

    Attributes:
        turns: numbers of the turns whose content is left out, in order.
        literals: the text before each of these contents, and the text after the last one.
    """

    turns: tuple[int, ...]
    literals: tuple[str, ...]

    @classmethod
    def of(
        cls, template: ChatTemplate, messages: Messages, turns: Sequence[int], heads: Mapping[int, str] | None = None
    ) -> "Skeleton | None":
        """Renders the conversation with placeholders.

        Args:
            template: the chat template.
            messages: the conversation.
            turns: numbers of the turns whose content is replaced, in order.
            heads: by turn what is kept of its content, before the placeholder.

        Returns:
            None where the template refuses the placeholders, leaves one out, or writes them in another order.
        """
        text = probed(template, with_placeholders(messages, turns, heads))
        if text is None:
            return None
        literals = []
        for turn in turns:
            before, separator, text = text.partition(PLACEHOLDER.format(turn))
            if not separator:
                return None
            literals.append(before)
        return cls(tuple(turns), (*literals, text))

    def places(self, text: str, contents: Mapping[int, str]) -> dict[int, Span] | None:
        """Where the contents stand in the conversation's own text; None where that has another text around them.

        Args:
            text: the rendered conversation.
            contents: the content of each turn that is left out here.
        """
        found: dict[int, Span] = {}
        position = 0
        for number, turn in enumerate(self.turns):
            before, after = self.literals[number : number + 2]
            if not text.startswith(before, position):
                return None
            start = position + len(before)
            written = next((form for form in _trimmed(contents[turn]) if text.startswith(form + after, start)), None)
            if written is None:
                return None
            position = start + len(written)
            found[turn] = Span(start, position)
        return found if text[position:] == self.literals[-1] else None

    def before(self, turn: int) -> str:
        """The literal text between the content of this turn and the one before it."""
        return self.literals[self.turns.index(turn)]


def probed(template: ChatTemplate, messages: Messages) -> str | None:
    """The text of a conversation that stands in no row; None where the template refuses it.

    That is not the row's fault: its own text may be fine.
    """
    try:
        return template.render(messages).text
    except FaultError:
        return None


def with_placeholders(messages: Messages, turns: Sequence[int], heads: Mapping[int, str] | None = None) -> Messages:
    """The conversation with a placeholder as the content of each of these turns, after what `heads` keeps of it."""
    replaced = list(messages.turns)
    for turn in turns:
        content = (heads or {}).get(turn, "") + PLACEHOLDER.format(turn)
        replaced[turn] = replace(replaced[turn], content=content)
    return Messages(tuple(replaced), messages.tools)


def spoken_turns(messages: Messages) -> list[int]:
    """Numbers of the turns that say something, and of answers without calls, which may be empty."""
    return [
        number
        for number, turn in enumerate(messages.turns)
        if (turn.content or "").strip() or (turn.role == "assistant" and not turn.calls)
    ]


def _trimmed(content: str) -> Iterator[str]:
    """The ways in which a template may write a content: with its blanks, or without some of those at its ends."""
    for start in (content, content.lstrip("\n"), content.lstrip()):
        yield from (start, start.rstrip("\n"), start.rstrip())


def shared_prefix(first: str, second: str) -> int:
    """With how many characters both begin; by halves, since texts are long and there is one a call."""
    same, differs = 0, min(len(first), len(second)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def shared_suffix(first: str, second: str) -> int:
    """With how many characters both end."""
    return shared_prefix(first[::-1], second[::-1])
