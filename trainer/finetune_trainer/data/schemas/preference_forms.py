"""The forms of preference rows: where the prompt stands, and what an answer is.

| prompt | answers | written by |
|---|---|---|
| turns under `prompt`, `messages` or `conversations` | turns, one turn, or a text | TRL, axolotl, LLaMA-Factory |
| the turns with which both dialogues begin | two dialogues | TRL, UltraFeedback |
| a text | turns of the assistant, or texts beside a system column | Intel, Argilla |
| an instruction and its input | texts | LLaMA-Factory |
| a text | texts | TRL, NeMo, Argilla |
| turns under `input.messages` | turns | OpenAI |
| turns under `context` | two `completions` with ranks (`ranked_completions`) | NeMo RL |
| what both texts begin with | two texts; dialogues as Anthropic's HH writes them become conversations | Anthropic |
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetSchema, Fields
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind
from finetune_trainer.data.schemas.alpaca import AlpacaSchema
from finetune_trainer.data.schemas.messages import MessagesSchema
from finetune_trainer.data.schemas.pair_dialogues import (
    faults_of_dialogues,
    hh_dialogues,
    hh_faults,
    without_shared_turns,
)
from finetune_trainer.data.schemas.preference import PreferenceForm, PreferenceSchema, with_answer_as_turns
from finetune_trainer.data.schemas.prompt_turns import PromptTurnsSchema
from finetune_trainer.data.schemas.ranked_completions import RankedCompletions
from finetune_trainer.data.schemas.row_schemas import PromptSchema, TextSchema
from finetune_trainer.data.schemas.text_check import as_text
from finetune_trainer.data.schemas.turn import ROLES
from finetune_trainer.data.tool_columns import TOOLS

_PROMPTS: Final = ("prompt", "question", "input", "query")
"""Columns of a prompt that is a text. Intel and Argilla write `question` and `input`."""
_DIALOGUES: Final = ("messages", "conversations", "context")
"""Columns of the turns before the answers, besides `prompt`. NeMo RL writes `context`."""
_OTHER_ANSWERS: Final = ("chosen_response", "rejected_response")
"""Columns of the answers as NeMo and Argilla write them."""
_LEAST_PROMPT: Final = 12
"""Characters from which on it is no chance that both answers begin with the prompt."""
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
    answers = [(names.chosen or "chosen", names.rejected or "rejected")]
    if names.chosen is None and names.rejected is None:
        answers.append(_OTHER_ANSWERS)
    found = [PreferenceSchema(form, *pair, ignored) for pair in answers for form in _forms(names, *pair, ignored)]
    return [*found, PreferenceSchema(_openai(), *_OPENAI_ANSWERS, ignored), RankedCompletions(ignored)]


def _forms(names: Fields, chosen: str, rejected: str, ignored: frozenset[str]) -> list[PreferenceForm]:
    """The forms of rows whose answers are in these columns."""

    def read(*columns: str) -> list[str]:
        return [column for column in columns if column not in ignored]

    system, prompts = names.system or "system", read(*([names.prompt] if names.prompt else _PROMPTS))
    instructions, context = read(names.instruction or "instruction"), names.input or "input"
    dialogues = read(names.prompt or "prompt", *([names.messages] if names.messages else _DIALOGUES))
    speakers = [(names.role or role, names.content or content) for role, content in _SPEAKERS]
    return [
        *(_dialogues(next(iter(prompts), ""), *keys, chosen, rejected, system) for keys in speakers),
        *(_prompt_turns(column, *keys, chosen, rejected, system) for column in dialogues for keys in speakers),
        *(_instruction(column, context, chosen, rejected, system) for column in instructions),
        *(_prompt_as_turn(prompt, *keys, chosen, rejected, system) for prompt in prompts for keys in speakers),
        *(_prompt_text(prompt, chosen, rejected) for prompt in prompts),
        _texts([*prompts, *instructions, *dialogues], chosen, rejected),
    ]


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
        dialogues = {chosen: better.messages(row).turns, rejected: worse.messages(row).turns}
        return faults_of_dialogues(dialogues, prompt, row.get(prompt), chosen)

    return PreferenceForm(
        columns=f"{chosen} and {rejected} with {role} and {content}",
        chosen=better,
        rejected=worse,
        fits=fits,
        joined=without_shared_turns,
        faults=faults,
        whole=True,
    )


def _prompt_as_turn(prompt: str, role: str, content: str, chosen: str, rejected: str, system: str) -> PreferenceForm:
    """A text that the user says, and answers of turns, or of texts where there is a system message."""

    def fits(row: Row) -> bool:
        answers = (row.get(chosen), row.get(rejected))
        turns = any(isinstance(answer, dict) or isinstance(_first(answer), dict) for answer in answers)
        keyed = any(role in turn for answer in answers if isinstance(turn := _first(answer) or answer, dict))
        # A system message may be empty in some rows.
        return isinstance(row.get(prompt), str) and ((turns and keyed) or (not turns and system in row))

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

    def faults(row: Row) -> Sequence[Fault]:
        said = as_text(row[prompt]).strip()
        both = [as_text(row[answer]).lstrip().startswith(said) for answer in (chosen, rejected)]
        return [_prompt_twice(prompt, chosen)] if len(said) >= _LEAST_PROMPT and all(both) else ()

    return PreferenceForm(
        columns=f"{prompt}, {chosen} and {rejected}",
        chosen=better,
        rejected=worse,
        fits=lambda row: isinstance(row.get(prompt), str),
        faults=faults,
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
        joined=hh_dialogues,
        faults=partial(hh_faults, chosen, rejected),
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


def _first(value: object) -> object:
    """The first element of a list; None of anything else."""
    return value[0] if isinstance(value, list) and value else None


def _prompt_twice(prompt: str, chosen: str) -> Fault:
    return Fault(
        kind=ProblemKind.PAIR,
        path=chosen,
        found=f"the text of {prompt} at the beginning of both answers",
        expected="the prompt once",
        remedy=f"remove the prompt from both answers, or name {prompt} in dataset.ignoredColumns",
    )
