"""Rows with a better answer and a worse one: every form that tools write, and every way in which a pair is wrong."""

from collections.abc import Sequence
from typing import Any

import pytest

from finetune_trainer.data.examples import (
    Conversation,
    Preference,
    PromptCompletion,
    RowLocation,
    SupervisedExample,
    Text,
)
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.schemas.pair_agreement import PairAgreement
from finetune_trainer.data.schemas.preference import PreferenceSchema
from finetune_trainer.data.schemas.preference_forms import preference_schemas
from finetune_trainer.data.tokenization.tokens import TokenCounts, TokenPair, TokenRow

pytestmark = pytest.mark.extras

ASKED = [{"role": "user", "content": "sky?"}]
BLUE, GREEN = {"role": "assistant", "content": "blue"}, {"role": "assistant", "content": "green"}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "sky?"}],
    "chosen": {"from": "gpt", "value": "blue"},
    "rejected": {"from": "gpt", "value": "green"},
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "TRL: turns": {"prompt": ASKED, "chosen": [BLUE], "rejected": [GREEN]},
    "TRL: dialogues": {"chosen": [*ASKED, BLUE], "rejected": [*ASKED, GREEN]},
    "UltraFeedback": {
        "prompt": "sky?",
        "chosen": [*ASKED, BLUE],
        "rejected": [*ASKED, GREEN],
        "messages": [*ASKED, BLUE],
        "score_chosen": 8.0,
        "score_rejected": 5.0,
    },
    "Anthropic": {"chosen": "\n\nHuman: sky?\n\nAssistant: blue", "rejected": "\n\nHuman: sky?\n\nAssistant: green"},
    "LLaMA-Factory: ShareGPT": SHAREGPT,
    "LLaMA-Factory: Alpaca": {"instruction": "sky?", "input": "", "chosen": "blue", "rejected": "green"},
    "axolotl": {"messages": ASKED, "chosen": BLUE, "rejected": GREEN},
    "texts after turns": {"messages": ASKED, "chosen": "blue", "rejected": "green"},
    "turns after a text": {"prompt": "sky?", "chosen": [BLUE], "rejected": [GREEN]},
    "OpenAI": {
        "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
        "preferred_output": [BLUE],
        "non_preferred_output": [GREEN],
    },
}


def _schema(row: dict[str, Any]) -> PreferenceSchema:
    return next(schema for schema in preference_schemas(None) if schema.fits(row))


def _pair(row: dict[str, Any]) -> tuple[SupervisedExample, SupervisedExample]:
    schema = _schema(row)
    assert schema.key(row) is not None, list(schema.faults(row))
    example = schema.build(row, RowLocation(file="pairs.jsonl", line=1))
    assert isinstance(example, Preference)
    return example.chosen, example.rejected


def _faults(row: dict[str, Any]) -> Sequence[Fault]:
    schema = _schema(row)
    assert schema.key(row) is None
    return schema.faults(row)


@pytest.mark.parametrize("form", CONVERSATIONS)
def test_pairs_of_conversations_are_read_in_every_form(form: str) -> None:
    both = _pair(CONVERSATIONS[form])

    for example, answer in zip(both, ("blue", "green"), strict=True):
        assert isinstance(example, Conversation)
        turns = [(turn.role, turn.content) for turn in example.messages.turns]
        assert turns == [("user", "sky?"), ("assistant", answer)]
        assert example.messages.turns[-1].trained


def test_a_system_message_makes_a_conversation_of_texts() -> None:
    chosen, _ = _pair({"system": "Be brief.", "prompt": "sky?", "chosen": "blue", "rejected": "green"})

    assert isinstance(chosen, Conversation)
    assert [turn.role for turn in chosen.messages.turns] == ["system", "user", "assistant"]


def test_texts_stay_texts() -> None:
    prompted = _pair({"prompt": "The sky is", "chosen": " blue", "rejected": " green"})
    whole = _pair({"chosen": "The sky is blue", "rejected": "The sky is green"})

    assert [example.completion for example in prompted if isinstance(example, PromptCompletion)] == [" blue", " green"]
    assert [example.text for example in whole if isinstance(example, Text)] == ["The sky is blue", "The sky is green"]


def test_what_two_dialogues_begin_with_is_not_trained() -> None:
    """The answers before the last question are the same in both: they say nothing about which is better."""
    before = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

    for example in _pair({"chosen": [*before, *ASKED, BLUE], "rejected": [*before, *ASKED, GREEN]}):
        assert isinstance(example, Conversation)
        assert [turn.trained for turn in example.messages.turns if turn.role == "assistant"] == [False, True]


def test_tools_calls_and_reasoning_are_in_both_answers() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    thinking = {"role": "assistant", "content": "green", "reasoning_content": "I guess."}

    chosen, rejected = _pair({"tools": [tool], "prompt": ASKED, "chosen": [calling], "rejected": [thinking]})

    assert isinstance(chosen, Conversation)
    assert isinstance(rejected, Conversation)
    assert chosen.messages.tools == rejected.messages.tools == (tool,)
    assert [call["function"]["name"] for call in chosen.messages.turns[-1].calls] == ["look"]
    assert rejected.messages.turns[-1].more == {"reasoning_content": "I guess."}


@pytest.mark.parametrize(
    ("row", "path", "found"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "rejected", "the same answer as chosen"),
        ({"prompt": "a", "chosen": "b"}, "rejected", "the keys prompt, chosen"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected", "null"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected", "the text ' '"),
        (
            {"chosen": [*ASKED, BLUE], "rejected": [{"role": "user", "content": "sea?"}, GREEN]},
            "chosen[0]",
            "a turn of the role user",
        ),
        ({"chosen": [*ASKED, BLUE], "rejected": [*ASKED, BLUE, *ASKED, GREEN]}, "chosen[2]", "the end of the dialogue"),
        (
            {"prompt": "sea?", "chosen": [*ASKED, BLUE], "rejected": [*ASKED, GREEN]},
            "prompt",
            "the text 'sea?', which no turn before the answers in chosen says",
        ),
        (
            {"chosen": "\n\nHuman: sky?\n\nAssistant: blue", "rejected": "\n\nHuman: sky?\n\nAssistant:"},
            "rejected",
            "a turn of the assistant without text",
        ),
    ],
)
def test_a_wrong_pair_is_named(row: dict[str, Any], path: str, found: str) -> None:
    (fault,) = _faults(row)

    assert (fault.path, fault.found) == (path, found)


def test_a_fault_of_the_prompt_is_said_once() -> None:
    (fault,) = _faults({"prompt": [{"role": "robot", "content": "sky?"}], "chosen": [BLUE], "rejected": [GREEN]})

    assert fault.path == "prompt[0].role"


def test_pairs_in_both_orders_and_scores_against_the_order_are_counted() -> None:
    agreement = PairAgreement("chosen", "rejected")

    for number in range(30):
        agreement.add({"score_chosen": 1, "score_rejected": 2 if number else 0}, number, number + 1000)
    before = agreement.contradictions
    agreement.add({}, 1000, 0)

    assert (before, agreement.contradictions) == (0, 1)
    assert (agreement.scored, agreement.against) == (30, 29)
    assert agreement.seems_swapped


def test_a_score_that_the_user_ignores_is_not_looked_at() -> None:
    agreement = PairAgreement("chosen", "rejected", frozenset({"score_chosen"}))

    for number in range(30):
        agreement.add({"score_chosen": 1, "score_rejected": 2}, number, number + 1000)

    assert agreement.scored == 0


def _row(*ids: int) -> TokenRow:
    return TokenRow(ids=ids, trained=(True,) * len(ids))


def test_the_prompt_of_two_texts_is_what_their_tokens_have_in_common() -> None:
    pair = TokenPair.of_texts(_row(1, 5, 6, 7), _row(1, 5, 8))

    assert pair.chosen.trained == (False, False, True, True)
    assert pair.rejected.trained == (False, False, True)


def test_a_pair_that_the_cut_makes_equal_is_left_out_and_counted() -> None:
    counts = TokenCounts()

    assert counts.take(TokenPair.of_texts(_row(1, 5, 6, 7), _row(1, 5, 6, 8, 9)), 3) is None
    kept = counts.take(TokenPair.of_texts(_row(1, 5, 6, 7), _row(1, 5, 8, 9, 9)), 4)

    assert kept is not None
    assert (counts.dropped, counts.rows, counts.truncated, counts.longest) == (1, 1, 2, 5)
    assert (counts.tokens, counts.trained_tokens) == (4 + 4, 2 + 2)
