"""The profile of 2023, trained: rows, numbers and adapter are the recipe's."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from finetune_operator.api.finetunejob import parse_spec
from finetune_operator.api.merge import merged
from finetune_operator.profiles import shipped
from finetune_trainer.contract.recipe import JobIdentity
from trainer.running import LocalRun, folder_of

pytestmark = pytest.mark.trainer

ROWS = [{"text": f"<s>[INST] What is {n} plus one? [/INST] {n + 1}</s>"} for n in range(24)]


def test_the_profile_of_2023_trains(local_run: Callable[..., LocalRun]) -> None:
    plain = local_run(ROWS).recipe.to_dict()
    sections: dict[str, Any] = {name: {"uri": plain[name]["uri"]} for name in ("model", "dataset", "output")}
    values = yaml.safe_load(shipped("llama2-2023"))["spec"]
    spec = parse_spec(merged([values, {**sections, "training": {"maxSteps": 2}}]), local=True)
    run = local_run(ROWS)
    run.recipe = spec.recipe(JobIdentity(name="tiny"))

    result = run()

    config = json.loads((folder_of(result) / "adapter_config.json").read_text())
    chosen = {key: config[key] for key in ("r", "lora_alpha", "lora_dropout", "bias", "target_modules", "use_rslora")}
    assert chosen == {
        "r": 64, "lora_alpha": 16, "lora_dropout": 0.1, "bias": "none", "target_modules": ["q_proj", "v_proj"],
        "use_rslora": False,
    }  # fmt: skip
    assert result.output.metrics["steps"] == 2
