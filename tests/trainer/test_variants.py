"""Kinds of base weights and of adapters: each trains, is saved, and does in PEFT what it did in training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.export.adapter import write_adapter
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import QUESTIONS, LocalRun, folder_of, recipe_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]

HEAD_AND_EMBEDDINGS = ["embed_tokens", "lm_head"]
MATRIX: list[tuple[str, dict[str, Any]]] = [
    *(
        (weights, {"variant": variant})
        for weights in ("nf4", "fp4", "int8", "none")
        for variant in ("lora", "rslora", "dora")
        if (weights, variant) != ("int8", "dora")
    ),
    *((weights, {"modulesToSave": HEAD_AND_EMBEDDINGS}) for weights in ("nf4", "int8", "none")),
    ("fp4", {"variant": "dora", "modulesToSave": ["lm_head"], "dropout": "0.1"}),
    ("none", {"targetModules": ["q_proj"], "modulesToSave": ["mlp"]}),
    ("nf4", {"targetModules": ["embed_tokens", "q_proj"]}),
]


def _rows(tokenizer: Any) -> Any:
    from datasets import Dataset

    texts = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in QUESTIONS]
    return Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in texts])


def _recipe(base: Path, **sections: Any) -> Recipe:
    return recipe_of(base, Path("/data"), Path("/output"), **sections)


def _trainer(recipe: Recipe, base: Path, tokenizer: Any, folder: Path) -> StepTrainer:
    model = load_base(base, recipe.model, torch.float32)
    return build_trainer(recipe, model, tokenizer, _rows(tokenizer), torch.float32, folder, [])


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])).logits
    return logits


@pytest.mark.parametrize(("weights", "lora"), MATRIX, ids=str)
def test_trains_and_does_the_same_in_peft(
    weights: str, lora: dict[str, Any], tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import PeftModel

    recipe = _recipe(tiny_model, model={"quantization": {"type": weights}}, lora=lora)
    trainer = _trainer(recipe, tiny_model, tokenizer, tmp_path / "work")
    before = _logits(trainer.model, tokenizer)
    trainer.train()
    adapter = write_adapter(trainer.model, tokenizer, recipe, tmp_path / "adapter")

    assert {part.dtype for part in trainer.model.parameters() if part.requires_grad} == {torch.float32}
    assert not torch.equal(_logits(trainer.model, tokenizer), before)
    served = PeftModel.from_pretrained(load_base(tiny_model, recipe.model, torch.float32), adapter.folder)
    assert torch.equal(_logits(served, tokenizer), _logits(trainer.model, tokenizer))


@pytest.mark.parametrize("names", [["lm_head"], ["embed_tokens"], HEAD_AND_EMBEDDINGS], ids=str)
def test_a_tied_head_follows_the_embeddings(names: list[str], tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    tied = tmp_path / "tied"
    shutil.copytree(tiny_model, tied)
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    recipe = _recipe(tied, lora={"modulesToSave": names})
    trainer = _trainer(recipe, tied, tokenizer, tmp_path / "work")
    trainer.train()
    adapter = write_adapter(trainer.model, tokenizer, recipe, tmp_path / "adapter")

    model = trainer.model
    assert torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    served = PeftModel.from_pretrained(load_base(tied, recipe.model, torch.float32), adapter.folder)
    assert torch.equal(served.get_input_embeddings().weight, served.get_output_embeddings().weight)
    assert torch.equal(_logits(served, tokenizer), _logits(model, tokenizer))


@pytest.mark.parametrize(("weights", "bias"), [("nf4", "all"), ("int8", "lora_only"), ("none", "all")])
def test_biases_are_trained_and_saved(
    weights: str, bias: str, tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    biased = shutil.copytree(tiny_model, tmp_path / "biased")
    LlamaForCausalLM(LlamaConfig.from_pretrained(biased, attention_bias=True)).save_pretrained(biased)
    lora = {"bias": bias, "targetModules": ["q_proj"]}
    recipe = _recipe(biased, model={"quantization": {"type": weights}}, lora=lora)
    trainer = _trainer(recipe, biased, tokenizer, tmp_path / "work")
    trainer.train()
    adapter = write_adapter(trainer.model, tokenizer, recipe, tmp_path / "adapter")

    saved = load_file(adapter.folder / "adapter_model.safetensors")
    biases = {name.rsplit(".", 2)[-2] for name in saved if name.endswith(".bias")}
    assert biases == ({"base_layer", "k_proj", "v_proj", "o_proj"} if bias == "all" else {"base_layer"})
    assert all(values.any() for name, values in saved.items() if name.endswith("base_layer.bias"))
    served = PeftModel.from_pretrained(load_base(biased, recipe.model, torch.float32), adapter.folder)
    assert torch.equal(_logits(served, tokenizer), _logits(trainer.model, tokenizer))


def test_modules_that_cannot_be_trained_whole_are_named(local_run: Runs) -> None:
    run = local_run(QUESTIONS, lora={"targetModules": ["q_proj"], "modulesToSave": ["mlp", "lm_heads", "norm"]})

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message == (
        "spec.lora.modulesToSave: mlp: its weights are quantised, and only plain ones can be trained whole; put it "
        "into lora.targetModules, or use none in model.quantization.type; lm_heads: no such module with weights in "
        "this model"
    )


def test_whole_modules_are_in_the_adapter(local_run: Runs) -> None:
    folder = folder_of(local_run(QUESTIONS, lora={"modulesToSave": ["norm", "lm_head"]})())

    names = load_file(folder / "adapter_model.safetensors").keys()
    assert {"base_model.model.lm_head.weight", "base_model.model.model.norm.weight"} <= names
    assert json.loads((folder / "adapter_config.json").read_text())["modules_to_save"] == ["lm_head", "norm"]


def test_restarts_bring_the_rate_back_to_its_peak(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    def rates(**training: Any) -> list[float]:
        recipe = _recipe(tiny_model, training={"maxSteps": 8, "scheduler": "cosine_with_restarts", **training})
        trainer = _trainer(recipe, tiny_model, tokenizer, tmp_path / "work")
        trainer.train()
        return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]

    assert [round(rate / 2e-3, 2) for rate in rates()] == [1, 0.85, 0.5, 0.15, 1, 0.85, 0.5, 0.15]
    assert [round(rate / 2e-3, 2) for rate in rates(restarts=3)] == [1, 0.5] * 4


def test_a_cosine_ends_at_the_least_rate_and_b_learns_faster(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    recipe = _recipe(
        tiny_model,
        training={"maxSteps": 4, "minLearningRate": "1e-3", "loraPlusRatio": "16", "optimizer": "adamw_8bit"},
    )
    trainer = _trainer(recipe, tiny_model, tokenizer, tmp_path / "work")
    trainer.train()

    steps = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert [round(rate / 2e-3, 2) for rate in steps] == [1, 0.93, 0.75, 0.57]
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    rates = {names[id(weight)]: group["lr"] for group in trainer.optimizer.param_groups for weight in group["params"]}
    trained = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert rates.keys() == trained
    assert {round(rate / 1e-3, 6) for name, rate in rates.items() if "lora_A" in name} == {1}
    assert {round(rate / 1e-3, 6) for name, rate in rates.items() if "lora_B" in name} == {16}
