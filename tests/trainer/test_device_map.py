"""Layers over several GPUs: what can be seen of it without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import ModelSpec, TrainingSpec
from finetune_trainer.contract.recipe.model import DeviceMap
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.model.load import device_map, load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.micro_batches import collate_rows
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.training_arguments import training_arguments
from trainer.running import QUESTIONS, LocalRun, recipe_of

pytestmark = pytest.mark.trainer


def test_the_map_is_accelerates_word_where_there_are_gpus() -> None:
    assert device_map(DeviceMap.NONE, gpu=None) is None
    assert [device_map(kind, gpu=0) for kind in list(DeviceMap)[1:]] == [
        "auto", "balanced", "balanced_low_0", "sequential"
    ]  # fmt: skip


def test_a_model_for_one_gpu_is_read_straight_to_it(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unquantised weights too. The device without memory stands for the GPU."""
    assert device_map(DeviceMap.NONE, gpu=3) == {"": 3}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "meta")
    spec = ModelSpec.model_validate({"uri": f"file://{tiny_model}", "quantization": {"type": "none"}})

    model = load_base(tiny_model, spec, torch.float32)

    assert {weight.device.type for weight in model.parameters()} == {"meta"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_it_is_refused_where_there_is_none(local_run: Callable[..., LocalRun]) -> None:
    with pytest.raises(TrainerError, match=r"spec\.model\.deviceMap: balanced: .*this machine has none") as caught:
        local_run(QUESTIONS, model={"deviceMap": "balanced"})()
    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_a_spread_model_trains_to_the_same_weights(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """All pieces on one CPU, but apart: accelerate's hooks are between them as between GPUs."""
    from accelerate import dispatch_model

    recipe = recipe_of(tiny_model, Path("/data"), Path("/output"), model={"quantization": {"type": "none"}})
    texts = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in QUESTIONS]
    rows = write_rows([TokenRow(ids=tuple(ids), trained=(True,) * len(ids)) for ids in texts], tmp_path / "rows.arrow")

    def weights(*, spread: bool, parallel: bool) -> dict[str, torch.Tensor]:
        model = load_base(tiny_model, recipe.model, torch.float32)
        if spread:
            parts = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb")
            places = (*parts, "lm_head")
            dispatch_model(model, dict.fromkeys(places, "cpu"), main_device="cpu", force_hooks=True)
            assert hasattr(model.model.layers[0], "_hf_hook")
        trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, tmp_path / "work", [])
        trainer.is_model_parallel = parallel
        trainer.train()
        return {name: part.detach().clone() for name, part in trainer.model.named_parameters() if part.requires_grad}

    plain, spread = weights(spread=False, parallel=False), weights(spread=True, parallel=True)
    assert plain.keys() == spread.keys()
    for name, values in plain.items():
        torch.testing.assert_close(values, spread[name])


def test_the_loss_is_where_transformers_sums_it(
    tiny_model: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head may be on another device than the first; the device without memory stands for the first here."""
    recipe = recipe_of(tiny_model, Path("/data"), Path("/output"))
    ids = tuple(range(5, 15))
    rows = write_rows([TokenRow(ids=ids, trained=(True,) * len(ids))] * 8, tmp_path / "rows.arrow")
    model = load_base(tiny_model, recipe.model, torch.float32)
    trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, tmp_path / "work", [])
    monkeypatch.setattr(trainer, "_prepare_inputs", lambda inputs: inputs)
    monkeypatch.setattr(type(trainer.args), "device", torch.device("meta"))

    loss = trainer.training_step(trainer.model, collate_rows([rows[0], rows[1]]))

    assert loss.device == torch.device("meta")
    assert trainer.last_loss > 0


def test_a_process_that_sees_several_gpus_trains_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL refuses a trainer whose arguments count more than one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)

    arguments = training_arguments(TrainingSpec(), torch.float32, tmp_path, gradient_checkpointing=False)

    assert arguments.device.type == "cuda"
    assert arguments.n_gpu == 1
