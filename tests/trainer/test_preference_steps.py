"""How a step of pairs is split: the two answers of a pair stay together, also when memory runs out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.data.tokenization.tokens import TokenPair, TokenRow
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.micro_batches import MicroBatches, ModelInputs, collate_rows
from finetune_trainer.train.reference import measure_reference
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import recipe_of

pytestmark = pytest.mark.trainer
PAIRS, PROMPT, ANSWERS = 8, 4, (6, 2)
TOKENS = 2 * PROMPT + sum(ANSWERS)
"""Of a pair."""


def _answer(pair: int, answer: int) -> TokenRow:
    length = ANSWERS[answer]
    ids = (*range(5, 5 + PROMPT), *range(20 + 10 * pair + answer, 20 + 10 * pair + answer + length))
    return TokenRow(ids=ids, trained=(False,) * PROMPT + (True,) * length)


@pytest.fixture
def make(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., StepTrainer]:
    """A trainer of two steps of 4 pairs, with dropout."""
    made = 0

    def trainer(pairs_a_pass: int) -> StepTrainer:
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        folder.mkdir()
        sections = {"training": {"maxSteps": 2, "batchSize": 4}, "lora": {"dropout": "0.1"}}
        recipe = recipe_of(tiny_model, tmp_path, tmp_path, method="dpo", **sections)
        pairs = (TokenPair(_answer(pair, 0), _answer(pair, 1)) for pair in range(PAIRS))
        rows = write_rows(pairs, folder / "rows.arrow")
        base = load_base(tiny_model, ModelSpec(uri=f"file://{tiny_model}"), torch.float32)
        found = build_trainer(recipe, base, tokenizer, rows, torch.float32, folder, [])
        measure_reference(found, rows, None, None)
        found.micro_batches = MicroBatches(
            packed=True, max_tokens=pairs_a_pass * TOKENS, max_rows=4, pad_id=0, sequences_per_row=2
        )
        return found

    return trainer


def test_pairs_that_do_not_fit_are_done_again_in_smaller_passes(make: Callable[..., StepTrainer]) -> None:
    trainer, seen = make(4), list[int]()

    def look(_: Any, __: Any, named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].numel())
        if seen[-1] > TOKENS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer.model.register_forward_pre_hook(look, with_kwargs=True)
    trainer.train_from(None)
    # Made afterwards, because making a trainer begins the random numbers anew.
    expected = make(1)
    expected.train_from(None)

    assert seen == [4 * TOKENS] * 2 + [2 * TOKENS] + [TOKENS] * 8, "a pair is never divided"
    weights = dict(expected.model.named_parameters())
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, weights[name]), name


def _step(*lengths: tuple[int, int]) -> ModelInputs:
    """A step of pairs whose every token says which pair it is of."""
    return collate_rows(
        [
            {"input_ids": [pair] * sum(both), "labels": [pair] * sum(both), "lengths": both, "reference": [pair, -pair]}
            for pair, both in enumerate(lengths)
        ]
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_pair_is_in_one_micro_batch_with_its_reference(packed: bool, ranks: int) -> None:
    split = MicroBatches(packed=packed, max_tokens=20, max_rows=3, pad_id=99, sequences_per_row=2)
    step = _step((3, 5), (2, 2), (9, 1), (4, 4), (30, 2), (1, 6), (2, 3))

    found = [part for rank in range(ranks) for part in split.split(step, rank=rank, ranks=ranks)]

    assert sorted(row for part in found for row in part["pairs"].rows) == list(range(7))
    for part in found:
        rows = part["pairs"].rows
        assert set(part["input_ids"].flatten().tolist()) - {99} == set(rows)
        assert part["pairs"].reference.tolist() == [[row, -row] for row in rows]
        assert len(rows) == 1 or part["input_ids"].numel() <= 20


def test_pairs_with_a_long_answer_share_no_micro_batch_with_short_ones() -> None:
    """A model may scale its position embeddings by the longest row of a micro-batch (LongRoPE)."""
    split = MicroBatches(packed=True, max_tokens=100, max_rows=8, pad_id=0, sequences_per_row=2, never_mixed_above=8)

    found = [part["pairs"].rows for part in split.split(_step((3, 5), (2, 9), (8, 8), (10, 1)))]

    assert sorted(map(sorted, found)) == [[0, 2], [1, 3]]
