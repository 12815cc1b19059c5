"""Values of odd types and sizes in a model's files: preflight ends with a verdict, and in no time."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.preflight_report import PreflightReport
from finetune_trainer.contract.text import MAX_INTEGER
from finetune_trainer.preflight import check_recipe
from finetune_trainer.storage.registry import StoreRegistry
from unit.preflight.tokenizers_made import tokenizer_json
from unit.trainer_train.recipes import recipe

pytestmark = pytest.mark.extras

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 258,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
TOKENIZER = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
ODD: list[Any] = [True, -1, 1e308, float("nan"), 10**400, 1 << 24, "x", [], [[1]], {"a": 1}, {"1": 7}, {"1": {}}]
CONFIG_KEYS = (*CONFIG, "text_config", "num_experts", "moe_intermediate_size", "dtype")
TOKENIZER_KEYS = (*TOKENIZER, "added_tokens_decoder", "chat_template", "add_prefix_space", "legacy")


def safetensors(shape: list[Any]) -> bytes:
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 64]}
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(64)


def report(folder: Path, *, weights: bytes = b"", **files: dict[str, Any]) -> PreflightReport:
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "tokenizer.json").write_bytes(tokenizer_json())
    (model / "model.safetensors").write_bytes(weights or safetensors([4, 4]))
    (model / "config.json").write_text(json.dumps(files.get("config", CONFIG)))
    (model / "tokenizer_config.json").write_text(json.dumps(files.get("tokenizer", TOKENIZER)))
    (folder / "rows.jsonl").write_text(json.dumps({"text": "a row" * 100}) + "\n")
    asked = recipe(
        model={"uri": f"file://{model}"},
        dataset={"uri": f"file://{folder}/rows.jsonl", "chatTemplate": None},
        output={"uri": f"file://{folder}/output"},
    )
    return check_recipe(asked, StoreRegistry(asked.storage, None))


def test_plain_files_pass(tmp_path: Path) -> None:
    assert report(tmp_path).passed


@pytest.mark.parametrize("key", CONFIG_KEYS)
def test_odd_values_in_config_json(tmp_path: Path, key: str) -> None:
    for value in ODD:
        found = report(tmp_path, config={**CONFIG, key: value})
        assert all(check.reason is not FailureReason.INTERNAL for check in found.checks), value


@pytest.mark.parametrize("key", TOKENIZER_KEYS)
def test_odd_values_in_tokenizer_config_json(tmp_path: Path, key: str) -> None:
    for value in ODD:
        found = report(tmp_path, tokenizer={**TOKENIZER, key: value})
        assert all(check.reason is not FailureReason.INTERNAL for check in found.checks), value


@pytest.mark.parametrize("template", [[{"name": [], "template": "x"}], [{"name": "default", "template": 7}], [7]])
def test_odd_named_templates(tmp_path: Path, template: list[Any]) -> None:
    assert report(tmp_path, tokenizer={**TOKENIZER, "chat_template": template}).checks


@pytest.mark.parametrize("shape", [[10**400], [1 << 62, 4], [-4, -4], [1e308], ["x"], [float("inf")], [[4]], 7])
def test_odd_shapes_in_a_safetensors_header(tmp_path: Path, shape: Any) -> None:
    found = report(tmp_path, weights=safetensors(shape))
    [model] = [check for check in found.checks if check.name == "model"]
    assert (model.reason, "damaged safetensors header" in model.message) == (FailureReason.MODEL_INVALID, True)


def test_sizes_that_no_model_has(tmp_path: Path) -> None:
    sizes = [key for key in CONFIG if key not in ("model_type", "num_hidden_layers")] + ["num_experts"]
    sizes += ["num_experts_per_tok", "moe_intermediate_size"]
    largest = report(tmp_path, config={**CONFIG, **dict.fromkeys(sizes, 1 << 24)})
    assert largest.summary is not None
    assert largest.summary.memory_estimate_bytes is None, "more than the API server's integers hold"
    assert sum(largest.memory.values()) > MAX_INTEGER
    assert report(tmp_path, config={**CONFIG, **dict.fromkeys(sizes, 10**9)}).memory == {}
