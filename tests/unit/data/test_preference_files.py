"""Preference files as other tools and data sets write them: the pairs that they mean, or a refusal with the remedy."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.examples import Conversation, Preference, PromptCompletion, SupervisedExample, Text
from unit.data.test_row_meaning import problems, scanned

pytestmark = pytest.mark.extras

Row = dict[str, Any]


def _user(text: str) -> Row:
    return {"role": "user", "content": text}


def _said(text: str) -> Row:
    return {"role": "assistant", "content": text}


BEFORE = [_user("Hi."), _said("Hello.")]
ASKED = [_user("Which colour has the sky?")]
SKY, BLUE, GREEN = "Which colour has the sky?", "Blue.", "Green."
TURNS, TWO_TURNS = [("user", SKY)], [("user", "Hi."), ("assistant", "Hello."), ("user", SKY)]
BRIEF = [("system", "Be brief."), ("user", SKY)]

CONVERSATIONS: dict[str, tuple[Row, list[tuple[str, str]]]] = {
    "Anthropic hh-rlhf": (
        {
            "chosen": f"\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: {SKY}\n\nAssistant: {BLUE}",
            "rejected": f"\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: {SKY}\n\nAssistant: {GREEN}",
        },
        TWO_TURNS,
    ),
    "UltraFeedback binarized": (
        {
            "prompt": SKY,
            "prompt_id": "6a1f",
            "chosen": [*ASKED, _said(BLUE)],
            "rejected": [*ASKED, _said(GREEN)],
            "messages": [*ASKED, _said(BLUE)],
            "score_chosen": 8.0,
            "score_rejected": 5.0,
        },
        TURNS,
    ),
    "NeMo RL": (
        {
            "context": ASKED,
            "completions": [{"rank": 1, "completion": [_said(GREEN)]}, {"rank": 0, "completion": [_said(BLUE)]}],
            "task_name": "preference",
        },
        TURNS,
    ),
    "Intel orca_dpo_pairs": ({"system": "Be brief.", "question": SKY, "chosen": BLUE, "rejected": GREEN}, BRIEF),
    "Intel orca_dpo_pairs, no system": ({"system": "", "question": SKY, "chosen": BLUE, "rejected": GREEN}, TURNS),
    "Argilla distilabel-intel-orca": (
        {
            "system": "Be brief.",
            "input": SKY,
            "chosen": BLUE,
            "rejected": GREEN,
            "generations": [BLUE, GREEN],
            "labelling_prompt": ASKED,
            "rating": [9.0, 4.0],
            "chosen_score": 9.0,
        },
        BRIEF,
    ),
    "Argilla distilabel-math-preference": (
        {
            "metadata": "{}",
            "instruction": SKY,
            "chosen_response": BLUE,
            "chosen_rating": 5.0,
            "rejected_response": GREEN,
            "rejected_rating": 2.0,
        },
        TURNS,
    ),
    "Argilla distilabel-capybara": (
        {
            "source": "Dove",
            "conversation": [{"input": "Hi.", "output": "Hello."}],
            "prompt": f"USER: Hi.\nASSISTANT: Hello.\nUSER: {SKY}",
            "chosen": [*BEFORE, *ASKED, _said(BLUE)],
            "rejected": [*BEFORE, *ASKED, _said(GREEN)],
            "rating_chosen": 5,
            "rating_rejected": 3,
        },
        TWO_TURNS,
    ),
    "LLaMA-Factory dpo_en_demo": (
        {
            "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": SKY}],
            "chosen": {"from": "gpt", "value": BLUE},
            "rejected": {"from": "gpt", "value": GREEN},
        },
        BRIEF,
    ),
    "axolotl chat_template.default": (
        {"messages": [*BEFORE, *ASKED], "chosen": _said(BLUE), "rejected": _said(GREEN)},
        TWO_TURNS,
    ),
    "axolotl chatml.argilla": (
        {"system": "Be brief.", "instruction": SKY, "chosen_response": BLUE, "rejected_response": GREEN},
        BRIEF,
    ),
    "Tülu 3": (
        {
            "id": "1",
            "source": "wildchat",
            "prompt": SKY,
            "chosen": [*ASKED, _said(BLUE)],
            "rejected": [*ASKED, _said(GREEN)],
            "chosen_rating": 5.0,
            "rejected_rating": 1.0,
            "chosen_model": "a",
        },
        TURNS,
    ),
    "orpo-dpo-mix": (
        {
            "prompt": "Hi.",
            "question": "Hi.",
            "chosen": [*BEFORE, *ASKED, _said(BLUE)],
            "rejected": [*BEFORE, *ASKED, _said(GREEN)],
        },
        TWO_TURNS,
    ),
    "OpenAI, Together and Fireworks": (
        {
            "input": {"messages": ASKED, "tools": [], "parallel_tool_calls": True},
            "preferred_output": [_said(BLUE)],
            "non_preferred_output": [_said(GREEN)],
        },
        TURNS,
    ),
    "NeMo RL, binary": ({"context": ASKED, "chosen": BLUE, "rejected": GREEN}, TURNS),
}


def _only_pair(path: Path, row: Row, **spec: Any) -> tuple[SupervisedExample, SupervisedExample]:
    scan, examples = scanned(path, row, schema="preference", **spec)
    assert [problem.remedy for problem in scan.findings.problems] == []
    (pair,) = examples
    assert isinstance(pair, Preference)
    return pair.chosen, pair.rejected


@pytest.mark.parametrize("written_by", CONVERSATIONS)
def test_a_conversation_and_its_two_answers(written_by: str, tmp_path: Path) -> None:
    row, before = CONVERSATIONS[written_by]

    for example, answer in zip(_only_pair(tmp_path / "pairs.jsonl", row), (BLUE, GREEN), strict=True):
        assert isinstance(example, Conversation)
        assert [(turn.role, turn.content) for turn in example.messages.turns] == [*before, ("assistant", answer)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": SKY, "chosen_response": BLUE, "rejected_response": GREEN, "chosen_reward": 8, "rejected_reward": 2},
        {"prompt": SKY, "chosen": BLUE, "rejected": GREEN},
    ],
    ids=["NeMo", "TRL"],
)
def test_texts_after_a_text(row: Row, tmp_path: Path) -> None:
    for example, answer in zip(_only_pair(tmp_path / "pairs.jsonl", row), (BLUE, GREEN), strict=True):
        assert isinstance(example, PromptCompletion)
        assert (example.prompt, example.completion) == (SKY, answer)


def test_rows_with_and_without_a_system_message_are_of_one_form(tmp_path: Path) -> None:
    rows = [
        {"system": system, "question": SKY, "chosen": BLUE, "rejected": GREEN} for system in ("", "Be brief.", None)
    ]

    scan, examples = scanned(tmp_path / "pairs.jsonl", *rows, schema="preference")

    assert (scan.findings.count, len(examples)) == (0, 3)


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        (
            {"prompt": SKY, "response_1": BLUE, "response_2": GREEN, "preference_strength": 2},
            "response_1 and response_2",
        ),
        ({"context": ASKED, "response1": BLUE, "response2": GREEN}, "response1 and response2"),
        (
            {"history": SKY, "c_root_id_A": "a", "c_root_id_B": "b", "human_ref_A": BLUE, "human_ref_B": GREEN},
            "human_ref_A and human_ref_B",
        ),
        (
            {"prompt": SKY, "response_0": BLUE, "response_1": GREEN, "better_response_id": 0},
            "response_0 and response_1",
        ),
        ({"prompt": SKY, "answers": [{"answer": BLUE, "rank": 1.0}, {"answer": GREEN, "rank": 2.0}]}, "in answers"),
        ({"instruction": SKY, "completions": [{"response": BLUE}, {"response": GREEN}]}, "in completions"),
        ({"instruction": SKY, "input": "", "output": [BLUE, GREEN]}, "in output"),
        (
            {"context": ASKED, "completions": [{"rank": rank, "completion": [_said(BLUE)]} for rank in (0, 1, 2)]},
            "write a row for each pair",
        ),
        (
            {"context": ASKED, "completions": [{"rank": 1, "completion": [_said(BLUE)]}] * 2},
            "rank two different answers",
        ),
        (
            {"model_a": "x", "model_b": "y", "winner": "model_a", "conversation_a": ASKED, "conversation_b": ASKED},
            "conversation_a and conversation_b",
        ),
        ({"prompt": ASKED, "completion": [_said(BLUE)], "label": True}, "this is KTO data"),
        ({"messages": [*ASKED, _said(BLUE)], "kto_tag": False}, "this is KTO data"),
        ({"messages": [*ASKED, _said(BLUE)]}, "rows with one answer are trained with method: sft"),
        ({"prompt": SKY, "winner": BLUE, "loser": GREEN}, "{prompt: prompt, chosen: winner, rejected: loser}"),
    ],
    ids=[
        "HelpSteer2",
        "HelpSteer3",
        "SHP",
        "SafeRLHF",
        "Nectar",
        "UltraFeedback",
        "comparison_gpt4",
        "NeMo RL, three answers",
        "NeMo RL, equal ranks",
        "arena",
        "KTO",
        "LLaMA-Factory KTO",
        "one answer",
        "other names",
    ],
)
def test_what_is_no_pair_is_refused_with_the_remedy(row: Row, remedy: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "pairs.jsonl", row, schema="preference")

    assert remedy in problem


def test_a_prompt_that_both_answers_repeat_is_named(tmp_path: Path) -> None:
    row = {"prompt": SKY, "chosen": f"{SKY} {BLUE}", "rejected": f"{SKY} {GREEN}"}

    (problem,) = problems(tmp_path / "pairs.jsonl", row, schema="preference")

    assert problem.startswith("chosen: the text of prompt at the beginning of both answers")
    chosen, _ = _only_pair(tmp_path / "pairs.jsonl", row, ignoredColumns=["prompt"])
    assert isinstance(chosen, Text), "the remedy that the message names"


def test_a_prompt_that_no_dialogue_says_is_named(tmp_path: Path) -> None:
    """A system message that stands in the prompt's turns alone would be lost."""
    row = {
        "prompt": [{"role": "system", "content": "Be brief."}, *ASKED],
        "chosen": [*ASKED, _said(BLUE)],
        "rejected": [*ASKED, _said(GREEN)],
    }

    (problem,) = problems(tmp_path / "pairs.jsonl", row, schema="preference")

    assert "'Be brief.', which no turn before the answers in chosen says" in problem
    assert _only_pair(tmp_path / "pairs.jsonl", row, ignoredColumns=["prompt"])


@pytest.mark.parametrize(
    ("answers", "scores"),
    [
        (("chosen", "rejected"), ("score_chosen", "score_rejected")),
        (("chosen", "rejected"), ("chosen_rating", "rejected_rating")),
        (("chosen_response", "rejected_response"), ("chosen_reward", "rejected_reward")),
    ],
)
def test_swapped_columns_are_found_by_their_scores(
    answers: tuple[str, str], scores: tuple[str, str], tmp_path: Path
) -> None:
    rows = [
        {
            "prompt": f"{number}?",
            **dict(zip(answers, (GREEN, BLUE), strict=True)),
            **dict(zip(scores, (1, 5), strict=True)),
        }
        for number in range(30)
    ]

    (problem,) = problems(tmp_path / "pairs.jsonl", *rows, schema="preference")

    assert "in 30 of 30 pairs with scores the rejected answer has the higher one" in problem
    named = {"chosen": answers[1], "rejected": answers[0]}
    assert problems(tmp_path / "pairs.jsonl", *rows, schema="preference", fields=named) == []


def test_every_broken_pair_is_named_by_its_line(tmp_path: Path) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    rows = [good, {**good, "rejected": "b"}, {"prompt": "a", "chosen": "b"}, good, {**good, "chosen": " "}]

    scan, examples = scanned(tmp_path / "pairs.jsonl", *rows, schema="preference")

    assert (scan.rows, len(examples)) == (5, 2)
    assert [(problem.line, problem.path) for problem in scan.findings.problems] == [
        (2, "rejected"),
        (3, "rejected"),
        (5, "chosen"),
    ]
