"""Checks that a chat template writes the tools, tool calls and reasoning of a conversation.

Most templates ignore tools without an error. The model would then be trained to answer after a call that is not in its
text.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.reasoning import reasoning_of, with_reasoning
from finetune_trainer.data.templates.chat import ChatTemplate

PLACEHOLDER = "FINETUNEPLACEHOLDER{}X"
"""A text that no row has. It replaces a text or a name to find its place in the rendered text."""


def require_written(template: ChatTemplate, messages: Messages, text: str, trained: Collection[int]) -> None:
    """Requires that the rendered text of a conversation has its tools, tool calls and trained reasoning.

    Args:
        template: the template.
        messages: the conversation.
        text: the conversation as the template renders it.
        trained: indices of the turns that are trained. Only their reasoning must be in the text: most templates leave
            out the reasoning of earlier turns, and so does a server.

    Raises:
        FaultError: the template leaves one of them out.
    """
    if messages.tools and template.render(Messages(messages.turns)).text == text:
        raise FaultError(left_out("the row's tools"))
    if any(turn.calls for turn in messages.turns):
        numbered = enumerate(messages.turns)
        renamed = tuple(with_other_calls(turn, number) if turn.calls else turn for number, turn in numbered)
        other = template.render(Messages(renamed, messages.tools)).text
        names = [call["function"]["name"] for turn in renamed for call in turn.calls]
        if not all(name in other for name in names):
            raise FaultError(left_out("tool calls"))
    reasoned = [number for number in trained if reasoning_of(messages.turns[number])]
    if reasoned:
        labels = {number: PLACEHOLDER.format(f"{number}R") for number in reasoned}
        turns = (with_reasoning(turn, labels[n]) if n in labels else turn for n, turn in enumerate(messages.turns))
        other = template.render(Messages(tuple(turns), messages.tools)).text
        if not all(label in other for label in labels.values()):
            raise FaultError(reasoning_left_out())


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
