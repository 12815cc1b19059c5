"""What in a config.json asks for code of another repository, and what does not."""

from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.model.hub_kernels import require_no_hub_kernels

PLACE = parse_uri("hf://org/name")


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation": "org/name@main:forward"},
        {"attn_implementation": "paged|org/name"},
        {"attn_implementation": {"": "sdpa", "text_config": "org/name"}},
        {"text_config": {"attn_implementation": "org/name"}},
        {"per_layer_config": [{}, {"attn_implementation": "org/name"}]},
        {"experts_implementation": "sonicmoe"},
        {"text_config": {"_experts_implementation": "deepgemm"}},
        {"experts_implementation": {"text_config": "deepgemm_megamoe"}},
        {"use_kernels": True},
        {"kernel_config": {"kernel_mapping": {"RMSNorm": "org/name:RMSNorm"}}},
    ],
    ids=str,
)
def test_kernels_are_refused_by_their_key(config: dict[str, Any]) -> None:
    with pytest.raises(TrainerError, match=r"config\.json of hf://org/name asks for code of another repo") as raised:
        require_no_hub_kernels(PLACE, {"model_type": "llama", **config})
    assert raised.value.reason is FailureReason.NOT_SUPPORTED


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"_attn_implementation": "flash_attention_2", "attn_implementation": None},
        {"experts_implementation": "grouped_mm", "_experts_implementation": None},
        {"use_kernels": False, "kernel_config": None},
        {"_name_or_path": "org/name", "auto_map": {"AutoConfig": "own/repo--own.OwnConfig"}},
    ],
    ids=str,
)
def test_others_pass(config: dict[str, Any]) -> None:
    require_no_hub_kernels(PLACE, {"model_type": "llama", **config})
