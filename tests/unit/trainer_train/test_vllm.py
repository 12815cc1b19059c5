"""What vLLM does with an adapter is said by the base model's architecture."""

from typing import Any

import pytest

from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.model.vllm import vllm_warnings

MIXTURE = {"num_local_experts": 8}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, ["loads no adapter of GPT2LMHeadModel: serve the merged model"]),
        ({"architectures": ["PersimmonForCausalLM"]}, ["does not serve PersimmonForCausalLM"]),
        ({"architectures": ["MixtralForCausalLM"], **MIXTURE}, ["--enable-mixed-moe-lora-format"]),
        ({"architectures": ["GptOssForCausalLM"], **MIXTURE}, []),
        ({"architectures": ["LlamaForCausalLM"]}, []),
        ({"architectures": ["SmolLM3ForCausalLM"]}, []),
        ({}, []),
        (
            {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": {"a": 1}},
            ['--hf-overrides \'{"architectures": ["Qwen3_5ForCausalLM"]}\''],
        ),
        (
            {
                "architectures": ["Qwen3_5MoeForConditionalGeneration"],
                "model_type": "qwen3_5_moe",
                "text_config": {"num_experts": 4},
            },
            ["Qwen3_5MoeForCausalLM", "--enable-mixed-moe-lora-format"],
        ),
    ],
)
def test_by_architecture(config: dict[str, Any], said: list[str]) -> None:
    warnings = vllm_warnings(LoraSpec(), config)

    assert len(warnings) == len(said)
    for warning, part in zip(warnings, said, strict=True):
        assert part in warning


def test_experts_without_an_adapter_need_no_switch() -> None:
    spec = LoraSpec.model_validate({"targetModules": ["q_proj"]})

    assert vllm_warnings(spec, {"architectures": ["MixtralForCausalLM"], **MIXTURE}) == []


def test_what_the_recipe_rules_out_is_said_alone() -> None:
    spec = LoraSpec.model_validate({"variant": "dora"})

    (warning,) = vllm_warnings(spec, {"architectures": ["MixtralForCausalLM"], **MIXTURE})
    assert "lora.variant: dora" in warning
