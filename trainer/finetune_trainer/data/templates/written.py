"""Whether a chat template writes all of a conversation: what every turn says, tools, calls of them, reasoning.

Most templates know nothing of tools and pass over them in silence. Some write a system message only at the beginning,
or only before the last turn of the user. The model would then be trained to answer to something that it never saw.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.reasoning import reasoning_of, with_reasoning
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.templates.skeleton import (
    PLACEHOLDER,
    Skeleton,
    probed,
    spoken_turns,
    with_placeholders,
)

_CERTAIN = 40
"""Characters of a content that stand in a rendered text by no chance."""


def require_written(
    template: ChatTemplate, messages: Messages, text: str, trained: Collection[int], whole: Skeleton | None
) -> None:
    """Requires that a template's text of a conversation has all of it.

    Args:
        template: the template.
        messages: the conversation.
        text: what the template makes of it.
        trained: numbers of the turns that are trained. Only of these the reasoning must be there: in turns before, most
            templates leave it out, as a server does.
        whole: the text around the contents of all turns; None where the template has none.

    Raises:
        FaultError: the template leaves one of them out.
    """
    if messages.tools and probed(template, Messages(messages.turns)) == text:
        raise FaultError(left_out("the row's tools"))
    if any(turn.calls for turn in messages.turns) and not _calls_written(template, messages, text):
        raise FaultError(left_out("tool calls"))
    if whole is None:
        _require_turns(template, messages, text)
    reasoned = [number for number in trained if reasoning_of(messages.turns[number])]
    if reasoned and not _reasoning_written(template, messages, text, reasoned):
        raise FaultError(reasoning_left_out())


def _require_turns(template: ChatTemplate, messages: Messages, text: str) -> None:
    """Requires that what each turn says is in the text.

    Raises:
        FaultError: a turn is left out.
    """
    turns = [turn for turn in spoken_turns(messages) if (messages.turns[turn].content or "").strip()]
    # The text beside calls is looked for with the calls.
    turns = [turn for turn in turns if not messages.turns[turn].calls]
    together = probed(template, with_placeholders(messages, turns)) or ""
    for turn in turns:
        if PLACEHOLDER.format(turn) not in together and not _turn_written(template, messages, turn, text):
            role = messages.turns[turn].role
            raise FaultError(left_out(f"a text of the role {role} (message {turn + 1})"))


def _turn_written(template: ChatTemplate, messages: Messages, turn: int, text: str) -> bool:
    """Whether the text would be another one if the turn said something else."""
    content = (messages.turns[turn].content or "").strip()
    if len(content) >= _CERTAIN and content in text:
        return True
    other = probed(template, with_placeholders(messages, [turn]))
    return other != text if other is not None else _longest_word(content) in text


def _calls_written(template: ChatTemplate, messages: Messages, text: str) -> bool:
    numbered = enumerate(messages.turns)
    renamed = tuple(with_other_calls(turn, number) if turn.calls else turn for number, turn in numbered)
    other = probed(template, Messages(renamed, messages.tools))
    if other is None:
        return all(name in text for name in _names(messages.turns))
    return all(name in other for name in _names(renamed))


def _names(turns: Sequence[Message]) -> list[str]:
    """The names of all functions that are called."""
    return [call["function"]["name"] for turn in turns for call in turn.calls]


def _reasoning_written(template: ChatTemplate, messages: Messages, text: str, reasoned: Sequence[int]) -> bool:
    labels = {number: PLACEHOLDER.format(f"{number}R") for number in reasoned}
    turns = (with_reasoning(turn, labels[n]) if n in labels else turn for n, turn in enumerate(messages.turns))
    other = probed(template, Messages(tuple(turns), messages.tools))
    if other is None:
        return all(reasoning_of(messages.turns[number]).strip() in text for number in reasoned)
    return all(label in other for label in labels.values())


def _longest_word(content: str) -> str:
    return max(re.findall(r"\w+", content), key=len, default="")


def with_other_calls(turn: Message, number: int = 0) -> Message:
    """The turn with placeholders as the names and arguments of its calls.

    Args:
        turn: the turn.
        number: its index in the conversation, which is part of the placeholders.
    """
    others = [_other(call, f"{number}C{place}") for place, call in enumerate(turn.calls)]
    return replace(turn, more={**(turn.more or {}), "tool_calls": others})


def left_out(what: str) -> Fault:
    """The fault of a row of which the template leaves out a part."""
    return _left_out(
        what, "set a dataset.chatTemplate that does, use a model whose template does, or remove it from the row"
    )


def reasoning_left_out() -> Fault:
    """The fault of a row whose reasoning the template leaves out of a trained turn."""
    return _left_out(
        "the assistant's reasoning",
        "where it is of a turn before the last: dataset.loss: completion, or a weight of 0 for that turn; else set a "
        "dataset.chatTemplate that writes it, or remove it from the row",
    )


def _left_out(what: str, remedy: str) -> Fault:
    return Fault(
        kind=ProblemKind.TEMPLATE,
        found=f"{what}, which the chat template leaves out",
        expected="a chat template that writes it",
        remedy=remedy,
    )


def _other(call: Mapping[str, Any], label: str) -> dict[str, Any]:
    name = PLACEHOLDER.format(label)
    return {**call, "function": {"name": name, "arguments": {name: name}}}
