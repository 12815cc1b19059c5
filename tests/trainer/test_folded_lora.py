"""An adapter that is folded into its layer's weight gives what PEFT's two products give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from datasets import Dataset
from peft import get_peft_model
from peft.tuners.lora.bnb import Linear4bit

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.model import folded_lora
from finetune_trainer.model.adapter import keep_in_float32, lora_config
from finetune_trainer.model.folded_lora import FoldedLora
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.micro_batches import collate_rows
from trainer.running import LocalRun, recipe_of

pytestmark = pytest.mark.trainer
IDS = torch.arange(3, 43).reshape(2, 20)


def _model(folder: Path, dtype: torch.dtype = torch.float32, **lora: Any) -> Any:
    base = load_base(folder, ModelSpec(uri=f"file://{folder}"), dtype)
    torch.manual_seed(0)
    model = get_peft_model(base, lora_config(recipe_of(folder, folder, folder, lora=lora).lora, base))
    keep_in_float32(model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


def _loss_and_gradients(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what was folded, product by product."""
    seen, real = list[torch.Size](), folded_lora.FoldedProduct.apply

    def noting(x: torch.Tensor, *rest: Any) -> Any:
        seen.append(x.shape)
        return real(x, *rest)

    monkeypatch.setattr(folded_lora.FoldedProduct, "apply", noting)
    return seen


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every weight that is unpacked to be folded."""
    seen = list[int]()

    def noting(*arguments: Any) -> torch.Tensor:
        seen.append(1)
        weight: torch.Tensor = dequantize_4bit(*arguments)
        return weight

    monkeypatch.setattr(folded_lora, "dequantize_4bit", noting)
    return seen


@pytest.mark.parametrize("lora", [{}, {"variant": "rslora", "alpha": 3}, {"bias": "all"}], ids=str)
def test_loss_and_gradients_are_pefts(tiny_model: Path, lora: dict[str, Any], products: list[torch.Size]) -> None:
    model = _model(tiny_model, **lora)
    expected, gradients = _loss_and_gradients(model)

    FoldedLora(model, kept=False)
    found, folded_gradients = _loss_and_gradients(model)

    layers = sum(isinstance(part, Linear4bit) for part in model.modules())
    assert len(products) == layers > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert folded_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(folded_gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_weight_that_is_kept_is_unpacked_once_and_changes_no_bit(tiny_model: Path, unpacked: list[int]) -> None:
    found = {}
    for kept in (False, True):
        model = _model(tiny_model)
        FoldedLora(model, kept=kept)
        unpacked.clear()
        found[kept] = _loss_and_gradients(model), len(unpacked)
    (loss, gradients), often = found[False]
    (same_loss, same_gradients), once = found[True]

    layers = sum(isinstance(part, Linear4bit) for part in model.modules())
    assert once == layers < often
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(same_gradients[name], gradient) for name, gradient in gradients.items())


@pytest.mark.parametrize("kept", [False, True])
def test_of_several_passes_with_one_adapter_only_the_first_unpacks(
    kept: bool, tiny_model: Path, unpacked: list[int]
) -> None:
    model = _model(tiny_model)
    FoldedLora(model, kept=kept)
    expected = [_loss_and_gradients(model)]
    _change(model)
    expected.append(_loss_and_gradients(model))

    model = _model(tiny_model)
    folding = FoldedLora(model, kept=kept)
    for loss, gradients in expected:
        unpacked.clear()
        with folding.cached_weights():
            twice = [_loss_and_gradients(model) for _ in range(2)]
        assert len(unpacked) == sum(isinstance(part, Linear4bit) for part in model.modules())
        for found, found_gradients in twice:
            assert torch.equal(found, loss)
            assert all(torch.equal(found_gradients[name], gradient) for name, gradient in gradients.items())
        _change(model)


@pytest.mark.parametrize(("checkpointing", "times"), [("disabled", 1), ("enabled", 2)])
def test_a_step_unpacks_a_weight_once_where_all_are_in_memory_anyway(
    checkpointing: str, times: int, local_run: Callable[..., LocalRun], tiny_model: Path, tokenizer: Any,
    tmp_path: Path, unpacked: list[int],
) -> None:  # fmt: skip
    run = local_run([], lora={"rank": 4}, training={"gradientCheckpointing": checkpointing})
    model = load_base(tiny_model, run.recipe.model, torch.float32)
    rows = [{"input_ids": list(range(300)), "labels": list(range(300))}] * 2
    trainer = build_trainer(run.recipe, model, tokenizer, Dataset.from_list(rows), torch.float32, tmp_path, [])
    unpacked.clear()

    step = collate_rows(rows)
    assert len(list(trainer.local_micro_batches(step))) == 2
    trainer.training_step(trainer.model, step)

    layers = sum(isinstance(part, Linear4bit) for part in trainer.model.modules())
    assert len(unpacked) == times * layers


@torch.no_grad()
def _change(model: Any) -> None:
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.add_(0.01)


@pytest.mark.parametrize("lora", [{"dropout": "0.5"}, {"variant": "dora"}], ids=str)
def test_what_cannot_be_folded_is_left_to_peft(
    tiny_model: Path, lora: dict[str, Any], products: list[torch.Size]
) -> None:
    model = _model(tiny_model, **lora)
    model.train()
    expected, gradients = _loss_and_gradients(model)

    FoldedLora(model, kept=False)
    found, same = _loss_and_gradients(model)

    assert products == []
    assert torch.equal(found, expected)
    assert all(torch.equal(same[name], gradient) for name, gradient in gradients.items())


def test_nothing_is_folded_in_half_precision(tiny_model: Path, products: list[torch.Size]) -> None:
    model = _model(tiny_model, torch.bfloat16)
    FoldedLora(model, kept=False)

    _loss_and_gradients(model)

    assert products == []


@torch.no_grad()
def test_dropout_is_folded_where_nothing_is_dropped(tiny_model: Path, products: list[torch.Size]) -> None:
    model = _model(tiny_model, dropout="0.5").eval()
    expected = model(input_ids=IDS).logits
    FoldedLora(model, kept=False)

    found = model(input_ids=IDS).logits

    assert products
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_few_tokens_are_not_worth_it(tiny_model: Path, products: list[torch.Size]) -> None:
    model = _model(tiny_model)
    FoldedLora(model, kept=False)

    model(input_ids=IDS[:, :1])

    assert products == []


def test_base_model_is_itself_while_the_adapter_is_off(tiny_model: Path, products: list[torch.Size]) -> None:
    model = _model(tiny_model)
    with torch.no_grad(), model.disable_adapter():
        expected = model(input_ids=IDS).logits
        FoldedLora(model, kept=False)
        found = model(input_ids=IDS).logits

    assert products == []
    assert torch.equal(found, expected)
