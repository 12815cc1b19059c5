"""Preference tuning of a real model: pairs that prefer short answers make its answers shorter."""

from pathlib import Path
from typing import Any

import pytest
import torch

from demo.smollm2 import chatterbot_rows, prepare_smollm2
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.runtime import log

pytestmark = pytest.mark.trainer
STEPS, BATCH = 60, 2
QUESTIONS, HELD_OUT = 32, 8
LONGEST = 48
"""Tokens of an answer, after which it is cut."""

Turn = dict[str, str]


def _questions() -> list[Turn]:
    """Different questions of the corpus, topics mixed, in a fixed order."""
    rows = chatterbot_rows()
    mixed = [rows[(index * 379) % len(rows)]["messages"][0] for index in range(len(rows))]
    return list({turn["content"]: turn for turn in mixed}.values())[: QUESTIONS + HELD_OUT]


def _answers(model: Any, tokenizer: Any, questions: list[Turn]) -> list[tuple[str, int]]:
    """The most likely answer to each question, and its tokens, at most LONGEST."""
    tokenizer.padding_side = "left"
    asked = tokenizer.apply_chat_template(
        [[question] for question in questions],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        answered = model.generate(**asked, do_sample=False, max_new_tokens=LONGEST)
    rows = [row[row != tokenizer.pad_token_id] for row in answered[:, asked["input_ids"].shape[1] :]]
    return [(tokenizer.decode(row, skip_special_tokens=True).strip(), len(row)) for row in rows]


def _pairs(questions: list[Turn], answers: list[str]) -> list[dict[str, Any]]:
    """The model's own answer is the rejected one, its first sentence the chosen one."""
    return [
        {
            "prompt": [question],
            "chosen": [{"role": "assistant", "content": answer.split(". ")[0].split("\n")[0]}],
            "rejected": [{"role": "assistant", "content": answer}],
        }
        for question, answer in zip(questions, answers, strict=True)
        if ". " in answer or "\n" in answer
    ]


def test_pairs_that_prefer_short_answers_shorten_answers(tmp_path: Path) -> None:
    from peft import PeftModel

    from finetune_trainer.model.load import load_base
    from finetune_trainer.model.tokenizer import load_tokenizer
    from trainer.running import LocalRun, folder_of

    with log.libraries_quiet():
        folder, questions = prepare_smollm2(), _questions()
        tokenizer = load_tokenizer(folder)
        base = load_base(folder, ModelSpec(uri=f"file://{folder}"), torch.float32)
        before = _answers(base, tokenizer, questions)
        pairs = _pairs(questions[HELD_OUT:], [text for text, _ in before[HELD_OUT:]])
        run = LocalRun.make(
            folder,
            tmp_path,
            pairs,
            method="dpo",
            training={"maxSteps": STEPS, "batchSize": BATCH, "learningRate": "1e-4"},
            dataset={"maxLength": 256},
            lora={"rank": 8, "alpha": 16},
        )

        adapter = folder_of(run())

        after = _answers(PeftModel.from_pretrained(base, adapter), tokenizer, questions[:HELD_OUT])
    lengths = [[length for _, length in answers] for answers in (before[:HELD_OUT], after)]
    assert sum(lengths[1]) < 0.7 * sum(lengths[0]), f"tokens of the answers {lengths[0]} -> {lengths[1]}: {after}"
