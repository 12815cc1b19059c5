"""The forms of preference rows: where the prompt stands, and what an answer is.

| prompt | answers | written by |
|---|---|---|
| turns under `prompt`, `messages` or `conversations` | turns, one turn, or a text | TRL, axolotl, LLaMA-Factory |
| the turns with which both dialogues begin | two dialogues | TRL, UltraFeedback |
| a text | turns of the assistant, or texts with a system message | Intel, Argilla |
| an instruction and its input | texts | LLaMA-Factory |
| a text | texts | TRL, NeMo |
| turns under `input.messages` | turns | OpenAI |
| what both texts begin with | two texts; dialogues as Anthropic's HH writes them become conversations | Anthropic |
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetSchema, Fields
from finetune_trainer.data.examples import Conversation, Message, Messages, Text
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.alpaca import AlpacaSchema
from finetune_trainer.data.schemas.messages import MessagesSchema
from finetune_trainer.data.schemas.preference import Pair, PreferenceForm, PreferenceSchema, with_answer_as_turns
from finetune_trainer.data.schemas.prompt_turns import PromptTurnsSchema
from finetune_trainer.data.schemas.row_schemas import PromptSchema, TextSchema
from finetune_trainer.data.schemas.text_check import as_text
from finetune_trainer.data.schemas.turn import ROLES
from finetune_trainer.data.tool_columns import TOOLS

_HH_TURN: Final = re.compile(r"\n\n(Human|Assistant):")
_OPENAI_PROMPT: Final = "input"
_OPENAI_ANSWERS: Final = ("preferred_output", "non_preferred_output")
_SPEAKERS: Final = (("role", "content"), ("from", "value"))


def preference_schemas(fields: Fields | None, ignored: frozenset[str] = frozenset()) -> list[PreferenceSchema]:
    """The schemas of preference rows, in the order in which they are tried: those with more structure come first.

    Args:
        fields: `dataset.fields`; None for the usual names.
        ignored: `dataset.ignoredColumns`.
    """
    names = fields or Fields()
    chosen, rejected = names.chosen or "chosen", names.rejected or "rejected"
    prompt, system = names.prompt or "prompt", names.system or "system"
    instruction, context = names.instruction or "instruction", names.input or "input"
    dialogues = [prompt, *([names.messages] if names.messages else ["messages", "conversations"])]
    speakers = [(names.role or role, names.content or content) for role, content in _SPEAKERS]
    forms = [
        *(_dialogues(prompt, *keys, chosen, rejected, system) for keys in speakers),
        *(_prompt_turns(column, *keys, chosen, rejected, system) for column in dialogues for keys in speakers),
        *(_prompt_as_turn(prompt, *keys, chosen, rejected, system) for keys in speakers),
        _instruction(instruction, context, chosen, rejected, system),
        _prompt_text(prompt, chosen, rejected),
        _texts([prompt, instruction, *dialogues], chosen, rejected),
    ]
    found = [PreferenceSchema(form, chosen, rejected, ignored) for form in forms]
    return [*found, PreferenceSchema(_openai(), *_OPENAI_ANSWERS, ignored)]


def _prompt_turns(column: str, role: str, content: str, chosen: str, rejected: str, system: str) -> PreferenceForm:
    """Turns before the answers."""

    def fits(row: Row) -> bool:
        first = _first(row.get(column))
        return isinstance(first, dict) and (role in first or content in first)

    better, worse = (PromptTurnsSchema(column, answer, role, content, system) for answer in (chosen, rejected))
    return PreferenceForm(
        columns=f"{column} with {role} and {content}, {chosen} and {rejected}",
        chosen=better,
        rejected=worse,
        fits=fits,
        prepared=partial(_answers_as_turns, chosen, rejected, role, content),
    )


def _dialogues(prompt: str, role: str, content: str, chosen: str, rejected: str, system: str) -> PreferenceForm:
    """Two dialogues that begin alike; a prompt beside them is one of the turns."""
    better, worse = (
        MessagesSchema(answer, role, content, DatasetSchema.PREFERENCE, system) for answer in (chosen, rejected)
    )

    def fits(row: Row) -> bool:
        first = _first(row.get(chosen)) or _first(row.get(rejected))
        return isinstance(first, dict) and role in first and ROLES.get(str(first[role])) not in (None, "assistant")

    def faults(row: Row) -> Sequence[Fault]:
        pair = better.messages(row).turns, worse.messages(row).turns
        shared = _shared_turns(*pair)
        for name, turns in zip((chosen, rejected), pair, strict=True):
            if len(turns) == shared or turns[shared].role != "assistant":
                return [_parted(f"{name}[{shared}]", turns, shared)]
        asked = row.get(prompt)
        contents = {(turn.content or "").strip() for turn in pair[0][:shared]}
        if isinstance(asked, str) and asked.strip() and asked.strip() not in contents:
            return [_prompt_elsewhere(prompt, asked, chosen)]
        return ()

    return PreferenceForm(
        columns=f"{chosen} and {rejected} with {role} and {content}",
        chosen=better,
        rejected=worse,
        fits=fits,
        joined=_without_shared_turns,
        faults=faults,
    )


def _prompt_as_turn(prompt: str, role: str, content: str, chosen: str, rejected: str, system: str) -> PreferenceForm:
    """A text that the user says, and answers of turns, or of texts where there is a system message."""

    def fits(row: Row) -> bool:
        answers = (row.get(chosen), row.get(rejected))
        turns = any(isinstance(answer, dict) or isinstance(_first(answer), dict) for answer in answers)
        keyed = any(role in turn for answer in answers if isinstance(turn := _first(answer) or answer, dict))
        return isinstance(row.get(prompt), str) and ((turns and keyed) or (not turns and bool(row.get(system))))

    def prepared(row: Row) -> Row:
        turns = [{role: "user", content: row.get(prompt)}]
        return _answers_as_turns(chosen, rejected, role, content, {**row, prompt: turns})

    better, worse = (PromptTurnsSchema(prompt, answer, role, content, system) for answer in (chosen, rejected))
    return PreferenceForm(
        columns=f"{prompt}, {chosen} and {rejected} with {role} and {content}",
        chosen=better,
        rejected=worse,
        fits=fits,
        prepared=prepared,
    )


def _instruction(instruction: str, context: str, chosen: str, rejected: str, system: str) -> PreferenceForm:
    """An instruction, its input, and texts."""
    better, worse = (AlpacaSchema(instruction, context, answer, system) for answer in (chosen, rejected))
    return PreferenceForm(
        columns=f"{instruction}, {chosen} and {rejected}",
        chosen=better,
        rejected=worse,
        fits=lambda row: row.get(instruction) is not None,
    )


def _prompt_text(prompt: str, chosen: str, rejected: str) -> PreferenceForm:
    """Three texts."""
    better, worse = (PromptSchema(prompt, answer) for answer in (chosen, rejected))
    return PreferenceForm(
        columns=f"{prompt}, {chosen} and {rejected}",
        chosen=better,
        rejected=worse,
        fits=lambda row: isinstance(row.get(prompt), str),
    )


def _texts(prompts: Sequence[str], chosen: str, rejected: str) -> PreferenceForm:
    """Two texts that begin alike."""
    return PreferenceForm(
        columns=f"{chosen} and {rejected}",
        chosen=TextSchema(chosen),
        rejected=TextSchema(rejected),
        fits=lambda row: (
            any(isinstance(row.get(answer), str) for answer in (chosen, rejected))
            and all(row.get(prompt) is None for prompt in prompts)
        ),
        joined=_hh_dialogues,
        faults=partial(_hh_faults, chosen, rejected),
    )


def _openai() -> PreferenceForm:
    """OpenAI's form: an object with the request, and two lists of turns."""

    def prepared(row: Row) -> Row:
        request = row.get(_OPENAI_PROMPT)
        if not isinstance(request, dict):
            return row
        tools = {key: request[key] for key in TOOLS if key in request}
        return {**row, _OPENAI_PROMPT: request.get("messages"), **tools}

    better, worse = (PromptTurnsSchema(_OPENAI_PROMPT, answer, "role", "content") for answer in _OPENAI_ANSWERS)
    return PreferenceForm(
        columns=f"{_OPENAI_PROMPT}.messages, {' and '.join(_OPENAI_ANSWERS)}",
        chosen=better,
        rejected=worse,
        fits=lambda row: isinstance(request := row.get(_OPENAI_PROMPT), dict) and "messages" in request,
        prepared=prepared,
    )


def _answers_as_turns(chosen: str, rejected: str, role: str, content: str, row: Row) -> Row:
    first = with_answer_as_turns(row, chosen, role, content)
    return with_answer_as_turns(first, rejected, role, content)


def _without_shared_turns(pair: Pair) -> Pair:
    """The pair whose answers are what the two conversations do not have in common."""
    chosen, rejected = pair
    assert isinstance(chosen, Conversation)
    assert isinstance(rejected, Conversation)
    shared = _shared_turns(chosen.messages.turns, rejected.messages.turns)
    return _answers_after(chosen, shared), _answers_after(rejected, shared)


def _answers_after(conversation: Conversation, shared: int) -> Conversation:
    """The conversation in which the first turns are the prompt."""
    turns = conversation.messages.turns
    prompt = (replace(turn, trained=False) for turn in turns[:shared])
    return replace(conversation, messages=Messages((*prompt, *turns[shared:]), conversation.messages.tools))


def _shared_turns(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
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


def _hh_dialogues(pair: Pair) -> Pair:
    """The pair as conversations where both texts are dialogues."""
    chosen, rejected = pair
    assert isinstance(chosen, Text)
    assert isinstance(rejected, Text)
    ours, theirs = _hh_turns(chosen.text), _hh_turns(rejected.text)
    if not ours or not theirs:
        return pair
    return _without_shared_turns(
        (
            Conversation(place=chosen.place, messages=Messages(ours)),
            Conversation(place=rejected.place, messages=Messages(theirs)),
        )
    )


def _hh_faults(chosen: str, rejected: str, row: Row) -> Sequence[Fault]:
    """What is wrong with two texts that are dialogues: an empty turn, or other questions."""
    ours, theirs = _hh_turns(as_text(row[chosen])), _hh_turns(as_text(row[rejected]))
    if not ours or not theirs:
        return ()
    shared = _shared_turns(ours, theirs)
    for name, turns in ((chosen, ours), (rejected, theirs)):
        empty = next((number for number, turn in enumerate(turns) if not turn.content), None)
        if empty is not None:
            return [_empty_turn(name, turns[empty].role)]
        if len(turns) == shared or turns[shared].role != "assistant":
            return [_parted(name, turns, shared)]
    return ()


def _first(value: object) -> object:
    """The first element of a list; None of anything else."""
    return value[0] if isinstance(value, list) and value else None


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
