"""Every setting of the recipe that is accepted changes what it says, and nothing that it does not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import TrainingSpec
from finetune_trainer.train.training_arguments import training_arguments
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]

OPTIMIZERS = ["adamw_torch", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit", "adafactor", "lion_32bit",
              "lion_8bit", "sgd"]  # fmt: skip
SCHEDULERS = ["linear", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt", "cosine_with_restarts"]
CHANGING: list[dict[str, Any]] = [
    *({"model": {"quantization": {"type": kind}}} for kind in ("fp4", "int8", "none")),
    {"model": {"quantization": {"doubleQuant": False}}},
    {"model": {"quantization": {"computeDtype": "bfloat16"}}},
    {"model": {"attention": "eager"}},
    {"dataset": {"loss": "all"}},
    {"dataset": {"maxLength": 40}},
    {"lora": {"alpha": 32}},
    {"lora": {"dropout": "0.5"}},
    *({"lora": {"variant": kind}} for kind in ("rslora", "dora")),
    *({"training": {"scheduler": kind}} for kind in SCHEDULERS),
    *({"training": {"optimizer": kind}} for kind in OPTIMIZERS if kind not in ("adamw_torch", "paged_adamw_32bit")),
    *({"lora": {"modulesToSave": names}} for names in (["embed_tokens"], ["lm_head"], ["norm"])),
    {"training": {"neftuneAlpha": "5"}},
    {"training": {"minLearningRate": "1e-4"}},
    {"training": {"loraPlusRatio": "16"}},
    {"training": {"maxSteps": 3}},
    {"training": {"learningRate": "1e-3"}},
    *({"training": {"warmup": warmup}} for warmup in ("0.5", "2")),
    {"training": {"weightDecay": "0.5"}},
    {"training": {"maxGradNorm": "0.0001"}},
    {"training": {"batchSize": 12}},
    {"training": {"seed": 7}},
]
NOT_CHANGING: list[dict[str, Any]] = [
    {"training": {"gradientCheckpointing": "enabled"}},
    {"training": {"gradientCheckpointing": "disabled"}},
    {"training": {"loggingSteps": 2}},
    *({"model": {"quantization": {"computeDtype": kind}}} for kind in ("float32", "float16")),  # on a CPU
    {"training": {"neftuneAlpha": "0", "minLearningRate": "0", "loraPlusRatio": "1"}},
    {"dataset": {"packing": "enabled"}},
    {"lora": {"targetModules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}},
]


def _weights(run: LocalRun) -> bytes:
    return (folder_of(run()) / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain_weights() -> dict[str, bytes]:
    """The weights without any setting, once they were made."""
    return {}


@pytest.mark.parametrize("sections", CHANGING, ids=str)
def test_setting_changes_the_adapter(sections: dict[str, Any], local_run: Runs, plain_weights: Any) -> None:
    plain = local_run(QUESTIONS, training={"maxSteps": 4})
    if not plain_weights:
        plain_weights["plain"] = _weights(plain)

    assert _weights(plain.changed(**sections)) != plain_weights["plain"]


@pytest.mark.parametrize("sections", NOT_CHANGING, ids=str)
def test_setting_leaves_every_bit_of_the_adapter(sections: dict[str, Any], local_run: Runs) -> None:
    plain = local_run(QUESTIONS)

    assert _weights(plain.changed(**sections)) == _weights(plain)


def test_a_constant_rate_is_warmed_up_too(local_run: Runs) -> None:
    plain = local_run(QUESTIONS, training={"maxSteps": 3, "scheduler": "constant", "warmup": "2"})

    assert _weights(plain) == _weights(plain.changed(training={"scheduler": "constant_with_warmup"}))
    assert _weights(plain) != _weights(plain.changed(training={"warmup": "0"}))


def test_optimizers_that_differ_only_in_speed_and_memory_run(local_run: Runs) -> None:
    for optimizer in ("adamw_torch", "paged_adamw_32bit"):
        assert manifest_of(local_run(QUESTIONS, training={"optimizer": optimizer})()).metrics["steps"] == 2


def test_the_default_optimizer_is_fused(tmp_path: Path) -> None:
    settings = training_arguments(TrainingSpec(), torch.float32, tmp_path, gradient_checkpointing=False)

    optimizer, options = Trainer.get_optimizer_cls_and_kwargs(settings)

    assert (optimizer, options["fused"]) == (torch.optim.AdamW, True)


def test_epochs_are_passes_over_all_rows(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": None, "epochs": 2, "batchSize": 10})

    result = run()

    # 24 rows in steps of 10 are 3 steps an epoch, the last of 4 rows.
    assert result.output.metrics["steps"] == 6
    once = local_run(QUESTIONS, training={"maxSteps": None, "epochs": 1, "batchSize": 10})()
    assert result.output.metrics["tokens"] == 2 * once.output.metrics["tokens"]


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_are_trained_with_the_adapter(bias: str, local_run: Runs) -> None:
    """Llama has no biases: the setting must reach PEFT and do no harm."""
    config = json.loads((folder_of(local_run(QUESTIONS, lora={"bias": bias})()) / "adapter_config.json").read_text())

    assert config["bias"] == bias


def test_rank_and_target_modules_reach_the_adapter(local_run: Runs) -> None:
    result = local_run(QUESTIONS, lora={"rank": 2, "targetModules": ["v_proj", "q_proj"]})()

    config = json.loads((folder_of(result) / "adapter_config.json").read_text())
    assert (config["r"], config["target_modules"]) == (2, ["q_proj", "v_proj"])
    assert (result.output.rank, result.output.target_modules) == (2, ["q_proj", "v_proj"])


@pytest.mark.parametrize("wrong", ["query_key_value", "v_prj", "lm_head", "mlp", "input_layernorm", "proj"])
def test_wrong_target_modules_are_refused_with_the_models_own_names(wrong: str, local_run: Runs) -> None:
    with pytest.raises(TrainerError) as caught:
        local_run(QUESTIONS, lora={"targetModules": ["q_proj", wrong, "wrong_too"]})()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message.startswith(f"spec.lora.targetModules: {wrong}, wrong_too: ")
    assert caught.value.message.endswith("it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj")


def test_manifest_names_the_layers_that_carry_the_adapter(local_run: Runs) -> None:
    result = local_run(QUESTIONS, lora={"targetModules": ["layers.0.self_attn.q_proj", "mlp.up_proj"]})()

    assert manifest_of(result).target_modules == ["q_proj", "up_proj"]
