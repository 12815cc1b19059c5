"""The auxiliary loss of mixtures does not depend on how a step is divided into micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.model.load import load_base
from finetune_trainer.train.micro_batches import IGNORED, MicroBatches, ModelInputs, collate_rows
from finetune_trainer.train.router_loss import RouterLoss
from trainer.architectures import ARCHITECTURES

pytestmark = pytest.mark.trainer
ROWS: list[dict[str, Any]] = [
    {"input_ids": list(range(start, start + length)), "labels": [IGNORED] * 2 + list(range(start + 2, start + length))}
    for start, length in ((5, 7), (90, 4), (200, 12), (40, 9))
]
DIVISIONS = {
    "packed": MicroBatches(packed=True, max_tokens=64, max_rows=8, pad_id=0),
    "padded": MicroBatches(packed=False, max_tokens=64, max_rows=8, pad_id=0),
    "two packs": MicroBatches(packed=True, max_tokens=16, max_rows=8, pad_id=0),
    "alone": MicroBatches(packed=True, max_tokens=64, max_rows=1, pad_id=0),
}


def _base(model_type: str, folder: Path, tiny_model: Path) -> Any:
    base = ARCHITECTURES[model_type].write(folder, tiny_model)
    spec = ModelSpec.model_validate({"uri": f"file://{base}", "quantization": {"type": "none"}, "attention": "sdpa"})
    return load_base(base, spec, torch.float32)


def _sum(model: Any, division: MicroBatches) -> tuple[float, int]:
    """The sum over all micro-batches, and how many there are."""
    router_loss, total, passes = RouterLoss.of(model), 0.0, 0
    assert router_loss is not None
    for micro_batch in division.split(collate_rows(ROWS)):
        inputs: ModelInputs = {name: value for name, value in micro_batch.items() if name != "labels"}
        with router_loss.recorded() as logits, torch.no_grad():
            model(**inputs, use_cache=False)
        total += float(router_loss.sum_over_trained_tokens(logits, micro_batch))
        passes += 1
    return total, passes


@pytest.mark.parametrize("model_type", ["mixtral", "granitemoe", "phimoe"])
def test_every_division_gives_the_same(model_type: str, tiny_model: Path, tmp_path: Path) -> None:
    model = _base(model_type, tmp_path / "base", tiny_model)

    sums = {name: _sum(model, division) for name, division in DIVISIONS.items()}

    assert [passes for _, passes in sums.values()] == [1, 1, 2, 4]
    assert sums["packed"][0] > 0
    for total, _ in sums.values():
        assert total == pytest.approx(sums["packed"][0], rel=1e-5)


def test_a_row_has_the_loss_of_transformers(tiny_model: Path, tmp_path: Path) -> None:
    model = _base("mixtral", tmp_path / "base", tiny_model)
    ids = torch.tensor([ROWS[0]["input_ids"]])
    router_loss = RouterLoss.of(model)
    assert router_loss is not None

    with torch.no_grad(), router_loss.recorded() as logits:
        model(input_ids=ids, use_cache=False)
    (row,) = DIVISIONS["alone"].split(collate_rows(ROWS[:1]))
    expected = load_balancing_loss_func(tuple(logits), model.config.num_local_experts, 2)

    trained = len(ROWS[0]["input_ids"]) - 2
    found = float(router_loss.sum_over_trained_tokens(logits, row))
    assert found == pytest.approx(model.config.router_aux_loss_coef * trained * float(expected), rel=1e-5)


def test_models_without_such_a_loss_have_none(tiny_model: Path, tmp_path: Path) -> None:
    assert RouterLoss.of(_base("llama", tmp_path / "llama", tiny_model)) is None
    model = _base("deepseek_v3", tmp_path / "deepseek", tiny_model)
    assert RouterLoss.of(model) is None, "its own code adds none"
