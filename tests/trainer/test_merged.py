"""The merged model loads by itself and says what the adapter says on the weights that it was trained on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.export.merged import write_merged
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.trainer import StepTrainer
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of, recipe_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]

MATRIX: list[tuple[str, dict[str, Any]]] = [
    *((weights, {"variant": "lora"}) for weights in ("nf4", "fp4", "none")),
    ("nf4", {"variant": "dora"}),
    ("nf4", {"variant": "rslora", "bias": "all"}),
    ("nf4", {"modulesToSave": ["norm", "lm_head"]}),
    ("nf4", {"targetModules": ["embed_tokens", "q_proj"]}),
]


def _trained(base: Path, tokenizer: Any, folder: Path, weights: str, lora: dict[str, Any]) -> StepTrainer:
    from datasets import Dataset

    recipe: Recipe = recipe_of(
        base,
        Path("/data"),
        Path("/output"),
        model={"quantization": {"type": weights}},
        lora=lora,
        training={"maxSteps": 6, "learningRate": "1e-2"},
    )
    texts = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in QUESTIONS]
    rows = Dataset.from_list([{"input_ids": ids, "labels": ids} for ids in texts])
    model = load_base(base, recipe.model, torch.float32)
    trainer = build_trainer(recipe, model, tokenizer, rows, torch.float32, folder, [])
    trainer.train()
    return trainer


def _logits(model: Any, tokenizer: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokenizer(QUESTIONS[3]["prompt"])["input_ids"]])).logits
    return logits.float()


def _loaded(folder: Path) -> Any:
    """The stored numbers, calculated with in float32 as the training did."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(told.values()), told
    return model


def _names(folder: Path) -> dict[str, str]:
    """Weight -> number type, of all shards."""
    found: dict[str, str] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as shard:
            found |= {name: shard.get_slice(name).get_dtype() for name in shard.keys()}  # noqa: SIM118
    return found


def _tied(tiny_model: Path, folder: Path) -> Path:
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(folder / "model.safetensors")
    # With two different ones in the file, transformers keeps them apart whatever config.json says.
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(("weights", "lora"), MATRIX, ids=str)
def test_merged_says_what_the_adapter_says(
    weights: str, lora: dict[str, Any], tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = _trained(tiny_model, tokenizer, tmp_path / "work", weights, lora)
    tuned = _logits(trainer.model, tokenizer)
    with trainer.model.disable_adapter():
        effect = (tuned - _logits(trainer.model, tokenizer)).abs().mean()

    write_merged(trainer.model, tokenizer, tiny_model, tmp_path / "merged")

    error = (_logits(_loaded(tmp_path / "merged"), tokenizer) - tuned).abs().mean()
    # What is left is the rounding of the weights to bfloat16.
    assert error < 0.02 * tuned.abs().mean()
    assert error < 0.03 * effect
    assert set(_names(tmp_path / "merged").values()) == {"BF16"}
    assert torch.equal(_logits(trainer.model, tokenizer), tuned), "the trained model is as it was"


def test_it_is_merged_into_what_the_packed_weights_say(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Merged into the original weights it would be off by what quantisation has changed."""
    from peft import PeftModel

    trainer = _trained(tiny_model, tokenizer, tmp_path / "work", "nf4", {})
    tuned = _logits(trainer.model, tokenizer)
    trainer.model.save_pretrained(str(tmp_path / "adapter"))
    original = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    on_original = PeftModel.from_pretrained(original, tmp_path / "adapter").merge_and_unload()

    write_merged(trainer.model, tokenizer, tiny_model, tmp_path / "merged")

    error = (_logits(_loaded(tmp_path / "merged"), tokenizer) - tuned).abs().mean()
    assert 5 * error < (_logits(on_original, tokenizer) - tuned).abs().mean()


@pytest.mark.parametrize(
    ("lora", "stays_tied"),
    [({}, True), ({"modulesToSave": ["embed_tokens", "lm_head"]}, True), ({"targetModules": ["embed_tokens"]}, False)],
    ids=str,
)
def test_tied_embeddings(
    lora: dict[str, Any], stays_tied: bool, tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    base = _tied(tiny_model, tmp_path / "base")
    trainer = _trained(base, tokenizer, tmp_path / "work", "nf4", lora)
    tuned = _logits(trainer.model, tokenizer)

    write_merged(trainer.model, tokenizer, base, tmp_path / "merged")

    assert ("lm_head.weight" in _names(tmp_path / "merged")) is not stays_tied, "one weight is written once"
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is stays_tied
    merged = _loaded(tmp_path / "merged")
    error = (_logits(merged, tokenizer) - tuned).abs().mean()
    assert error < 0.02 * tuned.abs().mean()


def test_shards_hold_what_one_file_holds(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    trainer = _trained(tiny_model, tokenizer, tmp_path / "work", "nf4", {})
    write_merged(trainer.model, tokenizer, tiny_model, tmp_path / "whole")
    limit = 20_000

    write_merged(trainer.model, tokenizer, tiny_model, tmp_path / "shards", shard_bytes=limit)

    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 5
    assert sorted(set(index["weight_map"].values())) == files
    assert index["weight_map"].keys() == _names(tmp_path / "whole").keys()
    for file in files:
        with safe_open(tmp_path / "shards" / file, framework="pt") as shard:
            sizes = [shard.get_tensor(name).nbytes for name in shard.keys()]  # noqa: SIM118
        assert sum(sizes) <= limit or len(sizes) == 1
    assert torch.equal(
        _logits(_loaded(tmp_path / "shards"), tokenizer), _logits(_loaded(tmp_path / "whole"), tokenizer)
    )


def test_a_mixture_of_experts_gets_its_checkpoints_names_back(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = _trained(tmp_path / "base", tokenizer, tmp_path / "work", "nf4", {"targetModules": ["q_proj", "v_proj"]})
    tuned = _logits(trainer.model, tokenizer)

    write_merged(trainer.model, tokenizer, tmp_path / "base", tmp_path / "merged")

    assert _names(tmp_path / "merged").keys() == _names(tmp_path / "base").keys()
    error = (_logits(_loaded(tmp_path / "merged"), tokenizer) - tuned).abs().mean()
    assert error < 0.02 * tuned.abs().mean()


def test_run_puts_the_merged_model_beside_the_adapter(local_run: Runs, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, base := local_run(QUESTIONS).folder / "base")
    (base / "generation_config.json").write_text('{"temperature": 0.7, "do_sample": true}')
    run = local_run(QUESTIONS, output={"merged": "bf16"}).changed(model={"uri": f"file://{base}"})

    result = run()

    manifest, place = manifest_of(result), folder_of(result).parent
    assert manifest.merged == f"{manifest.adapter}-merged"
    assert result.output.merged_uri == f"file://{place}/{manifest.merged}"
    merged = place / manifest.merged
    assert {file.path for file in manifest.files if file.path.startswith(f"{manifest.merged}/")} == {
        f"{manifest.merged}/{path.name}" for path in merged.iterdir()
    }
    assert {path.name for path in merged.iterdir()} == {
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert (merged / "generation_config.json").read_bytes() == (base / "generation_config.json").read_bytes()
    assert not [path for path in merged.iterdir() if str(run.folder).encode() in path.read_bytes()]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(merged), AutoTokenizer.from_pretrained(merged)
    assert model.dtype is torch.bfloat16
    assert model.config.use_cache
    asked = tokenizer("Question: what is it? Answer:", return_tensors="pt", return_token_type_ids=False)
    assert model.generate(**asked, max_new_tokens=3, pad_token_id=0).size(1) > asked["input_ids"].size(1)
