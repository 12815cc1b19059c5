"""Packed rows do not see each other, and packing and micro-batches change the speed but not the training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.memory.step_plan import StepPlan
from finetune_trainer.model.load import load_base
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.train.build_trainer import micro_batches_of
from finetune_trainer.train.isolation import rows_are_isolated
from finetune_trainer.train.micro_batches import IGNORED, MicroBatches, collate_rows, packed_micro_batch
from trainer.architectures import ARCHITECTURES
from trainer.running import QUESTIONS, LocalRun, folder_of

pytestmark = pytest.mark.trainer
ROWS: list[dict[str, Any]] = [
    {"input_ids": [1, 5, 6, 7, 8], "labels": [IGNORED, IGNORED, 6, 7, 8]},
    {"input_ids": [1, 9, 10], "labels": [1, 9, 10]},
    {"input_ids": [1, 40, 41, 42, 43, 44, 45, 46], "labels": [1, 40, 41, 42, 43, 44, 45, 46]},
]
Runs = Callable[..., LocalRun]


def _base(folder: Path, **spec: Any) -> Any:
    return load_base(folder, ModelSpec.model_validate({"uri": f"file://{folder}", **spec}), torch.float32)


def _loss_sum(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    labels = inputs.pop("labels")
    with torch.no_grad():
        # A key-value cache would hide the row boundaries: transformers looks for them only without one, as in training.
        logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")
    return loss.item()


@pytest.mark.parametrize("attention", ["varlen", "sdpa", "eager"])
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_loss_of_a_pack_is_the_sum_of_its_rows(attention: str, quantization: str, tiny_model: Path) -> None:
    model = _base(tiny_model, attention=attention, quantization={"type": quantization})
    step = collate_rows(ROWS)

    varlen = attention == "varlen"

    (packed,) = MicroBatches(packed=True, varlen=varlen, max_tokens=64, max_rows=8, pad_id=0).split(step)
    (padded,) = MicroBatches(packed=False, max_tokens=64, max_rows=8, pad_id=0).split(step)
    alone = list(MicroBatches(packed=True, max_tokens=64, max_rows=1, pad_id=0).split(step))

    assert packed["input_ids"].shape == (1, 16)
    assert padded["input_ids"].shape == (3, 8)
    assert len(alone) == 3
    expected = sum(_loss_sum(model, part) for part in alone)
    # int8 also rounds the layers' inputs, to one of 255 numbers.
    tolerance = 1e-4 if quantization == "int8" else 1e-5
    assert _loss_sum(model, packed) == pytest.approx(expected, rel=tolerance)
    assert _loss_sum(model, padded) == pytest.approx(expected, rel=tolerance)
    assert rows_are_isolated(model, vocabulary=352)


class WithoutRowBoundaries(torch.nn.Module):
    """A model that ignores where rows begin, as an attention kernel without support for packing would."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config
        self.device = model.device

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> Any:
        del position_ids
        return self.inner(input_ids=input_ids, use_cache=use_cache)

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()


def test_leak_is_seen_and_the_mode_is_put_back(tiny_model: Path) -> None:
    model = WithoutRowBoundaries(_base(tiny_model, attention="sdpa"))
    model.train()

    assert not rows_are_isolated(model, vocabulary=352)

    assert model.training


def test_leak_would_change_the_loss(tiny_model: Path) -> None:
    """The tiny model's attention matters: without boundaries the loss of a pack is another one."""
    model = _base(tiny_model, attention="sdpa")
    ids = [torch.tensor(row["input_ids"]) for row in ROWS]
    labels = [torch.tensor([IGNORED, *row["labels"][1:]]) for row in ROWS]
    apart, together = packed_micro_batch(ids, labels, varlen=False), packed_micro_batch(ids, labels, varlen=False)
    del together["position_ids"]

    assert abs(_loss_sum(model, apart) - _loss_sum(model, together)) > 0.5


def _adapter(run: LocalRun) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(folder_of(run()) / "adapter_model.safetensors")
    return loaded


@pytest.mark.parametrize(
    "sections",
    [
        {"dataset": {"packing": "disabled"}},
        {"dataset": {"packing": "disabled"}, "training": {"microBatchSize": 2}},
        {"training": {"microBatchSize": 1}},
        {"dataset": {"packing": "enabled"}, "training": {"microBatchSize": 4}},
        {"dataset": {"maxLength": 64}, "training": {"microBatchSize": 2}},
    ],
    ids=str,
)
def test_division_into_passes_does_not_change_the_training(sections: dict[str, Any], local_run: Runs) -> None:
    plain = local_run(QUESTIONS)

    expected, found = _adapter(plain), _adapter(plain.changed(**sections))

    # The optimizer divides by the root of the squared gradient, which blows rounding up where that is near zero.
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def hybrid(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model whose attention takes the borders of rows, and whose Mamba layers do not."""
    base = ARCHITECTURES["falcon_h1"].write(tmp_path_factory.mktemp("hybrid") / "base", tiny_model)
    return {"uri": f"file://{base}", "quantization": {"type": "none"}}


def test_packing_is_refused_where_rows_would_see_each_other(local_run: Runs, hybrid: dict[str, Any]) -> None:
    run = local_run(QUESTIONS, dataset={"packing": "enabled"}, model=hybrid)

    with pytest.raises(TrainerError, match=r"spec\.dataset\.packing: enabled") as caught:
        run()

    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_varlen_is_refused_where_there_is_nothing_to_pack(local_run: Runs, hybrid: dict[str, Any]) -> None:
    run = local_run(QUESTIONS, model={**hybrid, "attention": "varlen"})

    with pytest.raises(TrainerError, match=r"spec\.model\.attention: varlen") as caught:
        run()

    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_a_padding_token_without_an_embedding_is_not_used(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    base = _base(tiny_model, quantization={"type": "none"})
    assert tokenizer.pad_token_id >= base.get_input_embeddings().num_embeddings

    plan = StepPlan(micro_batch_tokens=64, max_rows=4, gradient_checkpointing=False)
    assert micro_batches_of(plan, base, tokenizer, packed=False).pad_id == 0
