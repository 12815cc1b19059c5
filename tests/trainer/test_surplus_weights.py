"""Weights in a model's files that no module takes end the training before its first step."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.model import ModelSpec
from finetune_trainer.model.layers import require_no_surplus
from finetune_trainer.model.load import load_base

pytestmark = pytest.mark.trainer


def _load_with(tiny_model: Path, folder: Path, added: Mapping[str, torch.Tensor], quantization: str) -> Any:
    shutil.copytree(tiny_model, folder)
    file = folder / "model.safetensors"
    save_file({**load_file(file), **added}, file, metadata={"format": "pt"})
    spec = ModelSpec.model_validate({"uri": f"file://{folder}", "quantization": {"type": quantization}})
    return load_base(folder, spec, torch.float32)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_bias_that_no_layer_takes(quantization: str, tiny_model: Path, tmp_path: Path) -> None:
    bias = {"model.layers.1.self_attn.q_proj.bias": torch.ones(64)}

    with pytest.raises(
        TrainerError, match=r"1 weights that no layer of config\.json takes, model\.layers\.1"
    ) as raised:
        _load_with(tiny_model, tmp_path / "base", bias, quantization)

    assert raised.value.reason is FailureReason.MODEL_INVALID


def test_buffers_of_older_checkpoints_are_left_out(tiny_model: Path, tmp_path: Path) -> None:
    buffer = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(8)}

    assert _load_with(tiny_model, tmp_path / "base", buffer, "none") is not None


@pytest.mark.parametrize(
    ("config", "tensors", "is_right"),
    [
        ({"num_hidden_layers": 61, "num_nextn_predict_layers": 1}, ["model.layers.61.eh_proj.weight"], True),
        ({"num_hidden_layers": 60}, ["model.layers.61.self_attn.o_proj.weight"], False),
        ({"num_hidden_layers": 2}, ["mtp.layers.0.fc.weight", "model.visual.blocks.0.attn.qkv.weight"], True),
        ({"num_hidden_layers": 2}, ["model.layers.0.mlp.up_proj.scales"], False),
    ],
)
def test_parts_that_a_language_model_leaves_out(config: dict[str, Any], tensors: list[str], is_right: bool) -> None:
    try:
        require_no_surplus(config, tensors)
    except TrainerError:
        assert not is_right
    else:
        assert is_right
