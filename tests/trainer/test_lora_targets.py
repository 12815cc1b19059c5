"""Which layers get an adapter, mostly decided on models without weights."""

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from finetune_trainer.contract.recipe import ModelSpec
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.memory.shape import model_shape
from finetune_trainer.memory.trainable import trained_tensors
from finetune_trainer.model.adapter import lora_config
from finetune_trainer.model.load import load_base
from finetune_trainer.model.lora_targets import lora_targets
from finetune_trainer.model.sizes import loaded_shape
from trainer.architectures import ARCHITECTURES
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of

pytestmark = pytest.mark.trainer


def _model(model_type: str) -> Any:
    import transformers

    architecture = ARCHITECTURES[model_type]
    config = transformers.AutoConfig.for_model(model_type, **architecture.config)
    with torch.device("meta"):
        return getattr(transformers, architecture.head).from_config(config)


def _chosen(model_type: str, **lora: Any) -> tuple[set[str], set[str]]:
    """The ends of the chosen layers' names and of the chosen parameters' names, without numbers."""
    targets = lora_targets(_model(model_type), LoraSpec.model_validate(lora))

    def ends(names: tuple[str, ...]) -> set[str]:
        return {".".join([part for part in name.split(".") if not part.isdigit()][-2:]) for name in names}

    return ends(targets.modules), ends(targets.parameters)


ATTENTION = {f"self_attn.{name}_proj" for name in "qkvo"}
EXPERTS = {"experts.gate_up_proj", "experts.down_proj"}


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "gpt_oss", "phimoe"])
def test_experts_get_an_adapter_and_their_router_none(model_type: str) -> None:
    assert _chosen(model_type) == (ATTENTION, EXPERTS)


def test_gate_of_shared_experts_gets_none() -> None:
    shared = {f"shared_expert.{name}_proj" for name in ("gate", "up", "down")}

    assert _chosen("qwen2_moe") == (ATTENTION | shared, EXPERTS)


def test_dense_layers_and_shared_experts_are_adapted_by_their_weights() -> None:
    """PEFT takes their names for those of experts (peft:utils/transformers_weight_conversion.py)."""
    modules, parameters = _chosen("deepseek_v3")

    assert not {name for name in modules if name.endswith(("gate_proj", "up_proj", "down_proj"))}
    assert parameters == EXPERTS | {"gate_proj.weight", "up_proj.weight", "down_proj.weight"}
    whole = lora_targets(_model("deepseek_v3"), LoraSpec()).parameters
    assert {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.shared_experts.up_proj.weight"} <= set(whole)


@pytest.mark.parametrize("lora", [{"dropout": "0.1"}, {"variant": "dora"}], ids=str)
def test_experts_get_none_where_peft_cannot(lora: dict[str, Any]) -> None:
    assert _chosen("mixtral", **lora) == (ATTENTION, set())


@pytest.mark.parametrize("model_type", ["gemma3", "llava", "mistral3", "qwen2_vl", "idefics3", "mllama"])
def test_vision_towers_and_projectors_get_none(model_type: str) -> None:
    chosen = lora_targets(_model(model_type), LoraSpec()).modules

    assert chosen
    assert not [name for name in chosen if not name.startswith(("model.language_model.", "model.text_model."))]


@pytest.mark.parametrize("model_type", ["mamba", "mamba2", "falcon_mamba", "falcon_h1", "nemotron_h", "jamba", "bamba"])
def test_mamba_layers_get_one_on_their_input_only(model_type: str) -> None:
    """peft#2556: the mixer's kernels read the other weights themselves."""
    modules, _ = _chosen(model_type)
    mixer = {name for name in modules if name.startswith(("mixer.", "mamba."))}

    attention_or_mlp = {f"mixer.{name}_proj" for name in ("q", "k", "v", "o", "up", "down")}
    assert mixer - attention_or_mlp <= {"mixer.in_proj", "mamba.in_proj"}
    assert mixer & {"mixer.in_proj", "mamba.in_proj"}


def test_names_of_the_recipe_choose_experts_too() -> None:
    assert _chosen("qwen3_moe", targetModules=["q_proj", "down_proj"]) == (
        {"self_attn.q_proj"},
        {"experts.down_proj"},
    )


@pytest.mark.parametrize("model_type", ["opt", "gpt2", "qwen3_next"])
def test_other_decoders_have_all_but_the_head(model_type: str) -> None:
    chosen = set(lora_targets(_model(model_type), LoraSpec()).modules)
    chosen |= {name.removesuffix(".weight") for name in lora_targets(_model(model_type), LoraSpec()).parameters}
    from transformers.pytorch_utils import Conv1D

    layers = {
        name
        for name, part in _model(model_type).named_modules()
        if isinstance(part, torch.nn.Linear | Conv1D) and not name.endswith("shared_expert_gate")
    }
    assert layers - chosen == {"lm_head"}


def test_run_names_the_layers_with_and_without_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    base = ARCHITECTURES["qwen2_moe"].write(tmp_path / "base", tiny_model)
    run = LocalRun.make(base, tmp_path, QUESTIONS, model={"quantization": {"type": "none"}})

    result = run()

    shared = ["down_proj", "gate_proj", "gate_up_proj", "up_proj"]
    assert result.output.target_modules == sorted([*shared, "k_proj", "o_proj", "q_proj", "v_proj"])
    assert manifest_of(result).modules_without_adapter == ["model.layers.*.mlp.shared_expert_gate"]
    assert "model.layers.*.mlp.shared_expert_gate" in (folder_of(result) / "README.md").read_text()

    more = run.changed(lora={"initialAdapterUri": f"file://{folder_of(result)}"}, output={"onExisting": "Replace"})
    assert more().output.digest != result.output.digest


def test_weights_that_gemma_3n_reads_itself_get_none() -> None:
    assert not [name for name in lora_targets(_model("gemma3n_text"), LoraSpec()).modules if "altup." in name]


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3"])
def test_estimate_knows_the_size_of_the_adapter(model_type: str, tiny_model: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    base = ARCHITECTURES[model_type].write(tmp_path / "base", tiny_model)
    model = load_base(base, ModelSpec.model_validate({"uri": f"file://{base}"}), torch.float32)
    loaded = loaded_shape(model)
    stored = model_shape(json.loads((base / "config.json").read_text()), tensor_shapes(base))
    assert loaded is not None
    assert stored is not None

    tuned = get_peft_model(model, lora_config(LoraSpec(), model))

    actual = sum(weight.numel() for name, weight in tuned.named_parameters() if "lora_" in name)
    for shape in (loaded, stored):
        assert sum(prod(tensor) for tensor in trained_tensors(shape, LoraSpec())) == actual


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
