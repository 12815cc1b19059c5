"""Code of a model's repository: run where the recipe says so, and neither fetched nor run elsewhere."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.preflight import check_recipe
from finetune_trainer.storage.registry import StoreRegistry
from trainer.running import QUESTIONS, LocalRun, manifest_of

pytestmark = pytest.mark.trainer

CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path({mark!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as one of an architecture that only its folder knows; its code leaves a file `mark` beside."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = shutil.copytree(tiny_model, tmp_path / "own")
    (folder / "own.py").write_text(CODE.format(mark=str(tmp_path / "mark")))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_is_run_only_where_the_recipe_says_so(
    own_model: Path, tmp_path: Path, local_run: Callable[..., LocalRun]
) -> None:
    run = local_run(QUESTIONS, model={"uri": f"file://{own_model}"})
    with pytest.raises(TrainerError, match=r"runs only with model\.trustRemoteCode: true") as caught:
        run()
    assert caught.value.reason is FailureReason.MODEL_INVALID
    assert not (tmp_path / "mark").exists()

    trusting = run.changed(model={"trustRemoteCode": True})
    assert check_recipe(trusting.recipe, StoreRegistry(trusting.recipe.storage, None)).passed
    assert not (tmp_path / "mark").exists(), "preflight runs none of it"

    result = trusting()
    assert (tmp_path / "mark").exists()
    assert manifest_of(result).metrics["steps"] == 2


def test_a_kernel_of_the_hub_is_not_loaded_with_that_permission_either(
    own_model: Path, local_run: Callable[..., LocalRun]
) -> None:
    """transformers asks config.json for the attention of an architecture that only the folder knows."""
    config = json.loads((own_model / "config.json").read_text())
    (own_model / "config.json").write_text(json.dumps(config | {"attn_implementation": "org/kernel"}))
    run = local_run(QUESTIONS, model={"uri": f"file://{own_model}", "trustRemoteCode": True})
    with pytest.raises(TrainerError, match="asks for code of another repository: attn_implementation: org/") as caught:
        run()
    assert caught.value.reason is FailureReason.NOT_SUPPORTED


def test_other_code_is_another_run(own_model: Path, local_run: Callable[..., LocalRun]) -> None:
    run = local_run(QUESTIONS, model={"uri": f"file://{own_model}", "trustRemoteCode": True})
    first = check_recipe(run.recipe, StoreRegistry(run.recipe.storage, None)).fingerprint
    (own_model / "own.py").write_text((own_model / "own.py").read_text() + "# another\n")

    assert check_recipe(run.recipe, StoreRegistry(run.recipe.storage, None)).fingerprint != first
