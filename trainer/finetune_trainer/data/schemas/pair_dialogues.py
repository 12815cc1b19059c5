"""Two dialogues as a pair: what both begin with is the prompt, and Anthropic's form, a dialogue in one text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from finetune_trainer.data.examples import Conversation, Message, Messages, Text
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.preference import Pair
from finetune_trainer.data.schemas.text_check import as_text

_HH_TURN: Final = re.compile(r"\n\n(Human|Assistant):")


def without_shared_turns(pair: Pair) -> Pair:
    """The pair whose answers are what the two conversations do not have in common."""
    chosen, rejected = pair
    assert isinstance(chosen, Conversation)
    assert isinstance(rejected, Conversation)
    shared = shared_turns(chosen.messages.turns, rejected.messages.turns)
    return _answers_after(chosen, shared), _answers_after(rejected, shared)


def _answers_after(conversation: Conversation, shared: int) -> Conversation:
    """The conversation in which the first turns are the prompt."""
    turns = conversation.messages.turns
    prompt = (replace(turn, trained=False) for turn in turns[:shared])
    return replace(conversation, messages=Messages((*prompt, *turns[shared:]), conversation.messages.tools))


def shared_turns(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """With how many equal turns both begin."""
    count = 0
    for ours, theirs in zip(chosen, rejected, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _hh_turns(text: str) -> tuple[Message, ...]:
    """The turns of a dialogue as Anthropic's helpful-harmless data write it; empty if the text is none."""
    if not _HH_TURN.match(text):
        return ()
    parts = _HH_TURN.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(
        Message(role=roles[speaker], content=said.strip())
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    )


def hh_dialogues(pair: Pair) -> Pair:
    """The pair as conversations where both texts are dialogues."""
    chosen, rejected = pair
    assert isinstance(chosen, Text)
    assert isinstance(rejected, Text)
    ours, theirs = _hh_turns(chosen.text), _hh_turns(rejected.text)
    if not ours or not theirs:
        return pair
    return without_shared_turns(
        (
            Conversation(place=chosen.place, messages=Messages(ours)),
            Conversation(place=rejected.place, messages=Messages(theirs)),
        )
    )


def hh_faults(chosen: str, rejected: str, row: Row) -> Sequence[Fault]:
    """What is wrong with two texts that are dialogues: an empty turn, or other questions."""
    ours, theirs = _hh_turns(as_text(row[chosen])), _hh_turns(as_text(row[rejected]))
    if not ours or not theirs:
        return ()
    shared = shared_turns(ours, theirs)
    for name, turns in ((chosen, ours), (rejected, theirs)):
        empty = next((number for number, turn in enumerate(turns) if not turn.content), None)
        if empty is not None:
            return [_empty_turn(name, turns[empty].role)]
        if len(turns) == shared or turns[shared].role != "assistant":
            return [_parted(name, turns, shared)]
    return ()


def faults_of_dialogues(
    dialogues: Mapping[str, Sequence[Message]], prompt: str, asked: object, chosen: str
) -> Sequence[Fault]:
    """What is wrong with two dialogues that are right, each by itself.

    Args:
        dialogues: the better one and the worse one, by their columns.
        prompt: the column that may have the prompt besides.
        asked: its value: a text, turns, or nothing.
        chosen: the column of the better one.
    """
    ours, theirs = dialogues.values()
    shared = shared_turns(ours, theirs)
    for name, turns in dialogues.items():
        if len(turns) == shared or turns[shared].role != "assistant":
            return [_parted(f"{name}[{shared}]", turns, shared)]
    said = [(turn.content or "").strip() for turn in ours[:shared]]
    for text in _texts_of(asked):
        # The prompt may be one of the turns, or all of them as one text.
        if text not in said and not (said and said[-1] and said[-1] in text):
            return [_prompt_elsewhere(prompt, text, chosen)]
    return ()


def _texts_of(asked: object) -> list[str]:
    """The texts of a prompt, be it one text or turns."""
    turns = asked if isinstance(asked, list) else [asked]
    values = [turn.get("content", turn.get("value")) if isinstance(turn, dict) else turn for turn in turns]
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


def _parted(path: str, turns: Sequence[Message], shared: int) -> Fault:
    return Fault(
        kind=ProblemKind.PAIR,
        path=path,
        found=f"a turn of the role {turns[shared].role}" if shared < len(turns) else "the end of the dialogue",
        expected="a turn of the assistant where the two dialogues part: both answer the same prompt",
        remedy="remove the row, or end both dialogues with the answers that are compared",
    )


def _prompt_elsewhere(prompt: str, asked: str, chosen: str) -> Fault:
    return Fault(
        kind=ProblemKind.PAIR,
        path=prompt,
        found=f"{shown(asked)}, which no turn before the answers in {chosen} says",
        expected="the prompt once: as text before the answers, or as their first turns",
        remedy=f"remove the turns of the prompt from both answers, or name {prompt} in dataset.ignoredColumns",
    )


def _empty_turn(path: str, role: str) -> Fault:
    return Fault(
        kind=ProblemKind.EMPTY,
        path=path,
        found=f"a turn of the {role} without text",
        expected="text that is not empty",
        remedy="remove the row, or fill it in",
    )
