"""A dozen architectures that differ most; benchmarks/architectures.py measures all of `trainer.architectures`."""

from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.model.model_types import DECODERS, REPEATED_LAYERS
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.storage.registry import StoreRegistry
from trainer.architecture_checks import measure
from trainer.architectures import ARCHITECTURES
from trainer.running import QUESTIONS, LocalRun, folder_of

pytestmark = pytest.mark.trainer

TRAINED = [
    ("gemma2", "none"),  # capped logits, sliding window
    ("gpt2", "nf4"),  # Conv1D layers
    ("opt", "none"),  # dropout of its own
    ("falcon", "none"),  # linear layers with a forward of their own
    ("longcat_flash", "nf4"),  # a router that reads the weight of its linear layer
    ("mixtral", "none"),  # an auxiliary loss, experts
    ("granitemoe", "none"),  # other names in its configuration, scaled logits
    ("phimoe", "none"),  # a router that is a linear layer, and draws experts at random in training
    ("deepseek_v3", "nf4"),  # dense layers and shared experts beside the experts
    ("gpt_oss", "none"),  # transposed experts
    ("llama4_text", "none"),  # a router that is a linear layer, no backbone under the usual name
    ("mamba", "nf4"),  # a mixer that reads weights itself
    ("falcon_h1", "none"),  # Mamba and attention in one layer
    ("gemma3", "none"),  # a vision tower
    ("qwen3_next", "none"),  # linear attention
]
REFUSED = sorted(ARCHITECTURES.keys() - DECODERS)


@pytest.mark.parametrize(("model_type", "quantization"), TRAINED)
def test_trained(model_type: str, quantization: str, tiny_model: Path, tmp_path: Path) -> None:
    measured = measure(ARCHITECTURES[model_type], tmp_path / model_type, tiny_model, quantization)

    assert measured.refusal is None
    assert measured.faults() == []


@pytest.mark.parametrize("model_type", REFUSED)
def test_refused(model_type: str, tiny_model: Path, tmp_path: Path) -> None:
    measured = measure(ARCHITECTURES[model_type], tmp_path / model_type, tiny_model)

    assert measured.refusal is not None
    assert f"model_type {model_type} is " in measured.refusal


@pytest.mark.parametrize("model_type", ["qwen2_moe", "falcon_h1"])
def test_resumed_training_ends_with_the_same_bytes(model_type: str, tiny_model: Path, tmp_path: Path) -> None:
    base = ARCHITECTURES[model_type].write(tmp_path / "base", tiny_model)
    run = LocalRun.make(base, tmp_path, QUESTIONS, model={"quantization": {"type": "none"}}, training={"maxSteps": 3})

    def stop(progress: Progress) -> None:
        if progress.stage is Stage.TRAINING and progress.step == 1:
            run.stop.set()

    run.on_progress = stop
    with pytest.raises(TrainerError) as stopped:
        run()
    resumed = run.changed()
    weights = (folder_of(resumed()) / "adapter_model.safetensors").read_bytes()

    assert stopped.value.reason is FailureReason.PREEMPTED
    assert {progress.resumed_from_step for progress in resumed.seen if progress.stage is Stage.TRAINING} == {1}
    whole = run.changed(output={"uri": f"file://{tmp_path}/whole"})()
    assert weights == (folder_of(whole) / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("model_type", "quantization"), [("rwkv", "nf4"), ("hy_v4", "int8")])
def test_a_quantisation_with_which_a_model_fails_is_refused_before_training(
    model_type: str, quantization: str, tiny_model: Path, tmp_path: Path
) -> None:
    base = ARCHITECTURES[model_type].write(tmp_path / "base", tiny_model)
    run = LocalRun.make(base, tmp_path, QUESTIONS, model={"quantization": {"type": quantization}})
    context = PreflightContext(run.recipe, StoreRegistry(run.recipe.storage, None), lambda _: None, "token")

    with pytest.raises(TrainerError) as by_preflight:
        MODEL.run(context)
    with pytest.raises(TrainerError) as by_training:
        run()

    assert by_preflight.value.message.startswith(f"spec.model.quantization.type: {quantization}: ")
    assert by_training.value.message == by_preflight.value.message


@pytest.mark.parametrize("model_type", sorted(REPEATED_LAYERS))
def test_merged_model_of_repeated_layers_is_refused_before_training(
    model_type: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Its layers share weights, and each has an adapter of its own."""
    base = ARCHITECTURES[model_type].write(tmp_path / "base", tiny_model)
    run = LocalRun.make(base, tmp_path, QUESTIONS, output={"merged": "bf16"})
    context = PreflightContext(run.recipe, StoreRegistry(run.recipe.storage, None), lambda _: None, "token")

    with pytest.raises(TrainerError) as by_preflight:
        MODEL.run(context)
    with pytest.raises(TrainerError) as by_training:
        run()

    assert by_preflight.value.message.startswith("spec.output.merged: bf16: ")
    assert by_training.value.message == by_preflight.value.message
    assert run.changed(output={"merged": "none"})().output.merged_uri is None
