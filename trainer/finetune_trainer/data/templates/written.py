"""Whether a chat template writes all that a conversation has besides texts: tools, calls of them, reasoning.

Most templates know nothing of tools and pass over them in silence. The model would then be trained to answer after a
call that it never saw.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from finetune_trainer.data.example import Message, Talk
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate

_OTHER = "FINETUNEPLACEHOLDER{}X"
_REASONING = ("reasoning_content", "thinking")


def require_written(template: ChatTemplate, talk: Talk, text: str) -> None:
    """Requires that a template's text of a talk has all of it.

    Args:
        template: the template.
        talk: the talk.
        text: what the template makes of it.

    Raises:
        FaultError: something is left out.
    """
    if talk.tools and template.render(Talk(talk.messages)).text == text:
        raise FaultError(left_out("the row's tools"))
    if any(turn.calls for turn in talk.messages):
        numbered = enumerate(talk.messages)
        renamed = tuple(with_other_calls(turn, number) if turn.calls else turn for number, turn in numbered)
        other = template.render(Talk(renamed, talk.tools)).text
        names = [call["function"]["name"] for turn in renamed for call in turn.calls]
        if not all(name in other for name in names):
            raise FaultError(left_out("tool calls"))
    if any(_reasons(turn) for turn in talk.messages):
        plain = tuple(_without_reasoning(turn) for turn in talk.messages)
        if template.render(Talk(plain, talk.tools)).text == text:
            raise FaultError(left_out("the assistant's reasoning"))


def with_other_calls(turn: Message, number: int = 0) -> Message:
    """The turn with calls of tools that no one has."""
    others = [_other(call, f"{number}C{place}") for place, call in enumerate(turn.calls)]
    return replace(turn, more={**(turn.more or {}), "tool_calls": others})


def left_out(what: str) -> Fault:
    """The fault of a row of which the template does not write everything."""
    return Fault(
        kind=ProblemKind.TEMPLATE,
        found=f"{what}, which the chat template leaves out",
        expected="a chat template that writes it",
        remedy="set a dataset.chatTemplate that does, use a model whose template does, or remove it from the row",
    )


def _other(call: Mapping[str, Any], label: str) -> dict[str, Any]:
    name = _OTHER.format(label)
    return {**call, "function": {"name": name, "arguments": {name: name}}}


def _reasons(turn: Message) -> bool:
    return any((turn.more or {}).get(key) for key in _REASONING)


def _without_reasoning(turn: Message) -> Message:
    more: dict[str, Any] = {key: value for key, value in (turn.more or {}).items() if key not in _REASONING}
    return replace(turn, more=more or None)
