"""Continuing from an adapter: the training starts at its weights, and only at an adapter that the recipe describes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_trainer.contract.failure import FailureReason, TrainerError
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The place of a run that has made a plain adapter; read only."""
    return folder_of(LocalRun.make(tiny_model, tmp_path_factory.mktemp("first"), QUESTIONS)()).parent


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """The folder of a plain adapter, beside its manifest."""
    place = shutil.copytree(made, tmp_path / "made")
    return next(path for path in place.iterdir() if path.is_dir())


STANDING_STILL: dict[str, Any] = {"maxSteps": 1, "learningRate": "1e-30"}


def _continued(run: LocalRun, place: Path, **sections: Any) -> LocalRun:
    lora = {**sections.pop("lora", {}), "initialAdapterUri": f"file://{place}"}
    return run.changed(lora=lora, training={**STANDING_STILL, **sections.pop("training", {})}, **sections)


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"variant": "dora", "modulesToSave": ["embed_tokens", "norm"]},
        {"variant": "rslora", "targetModules": ["v_proj", "q_proj"], "bias": "all"},
    ],
    ids=str,
)
def test_training_starts_at_the_adapters_weights(lora: dict[str, Any], local_run: Runs) -> None:
    first = local_run(QUESTIONS, lora=lora)
    before = first()
    folder = folder_of(before)

    run = _continued(first, folder, lora=lora)
    after = run()

    start, end = (load_file(place / "adapter_model.safetensors") for place in (folder, folder_of(after)))
    assert start.keys() == end.keys()
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert any(weights.any() for name, weights in start.items() if "lora_B" in name), "the first run has trained"
    assert after.fingerprint != before.fingerprint
    recorded = {item.uri.rsplit("/", 1)[-1]: item.sha256 for item in manifest_of(after).initial_adapter}
    publish_output = {file.path.rsplit("/", 1)[-1]: file.sha256 for file in manifest_of(before).files}
    assert recorded == {name: publish_output[name] for name in ("adapter_config.json", "adapter_model.safetensors")}


def test_training_goes_on_from_there(local_run: Runs) -> None:
    first = local_run(QUESTIONS, training={"maxSteps": 6})
    folder = folder_of(first())

    anew = first.changed(training={"maxSteps": 1, "seed": 7})().output.metrics["loss"]
    onward = _continued(first, folder, training={"seed": 7})().output.metrics["loss"]

    assert onward < anew - 0.1


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"rank": 8}, "its rank is 4, and spec.lora.rank is 8: write the adapter's"),
        ({"alpha": 9}, "its alpha is 8, and spec.lora.alpha is 9"),
        ({"variant": "dora"}, "its variant is lora, and spec.lora.variant is dora"),
        ({"bias": "all"}, "its bias is none, and spec.lora.bias is all"),
        ({"modulesToSave": ["norm"]}, "its modulesToSave is [], and spec.lora.modulesToSave is [norm]"),
        ({"targetModules": ["q_proj"]}, "and spec.lora.targetModules is [q_proj]"),
    ],
    ids=str,
)
def test_a_recipe_for_another_kind_is_refused_by_the_field(
    lora: dict[str, Any], said: str, local_run: Runs, adapter: Path
) -> None:
    with pytest.raises(TrainerError) as caught:
        _continued(local_run(QUESTIONS), adapter, lora=lora)()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message.startswith(f"spec.lora.initialAdapterUri: file://{adapter}: ")
    assert said in caught.value.message


def test_other_layers_than_all_linear_are_seen_when_the_weights_come(local_run: Runs) -> None:
    first = local_run(QUESTIONS, lora={"targetModules": ["q_proj"]})
    folder = folder_of(first())

    with pytest.raises(TrainerError, match=r"lora_A\.weight the adapter has none") as caught:
        _continued(first, folder, lora={"targetModules": ["all-linear"]})()

    assert caught.value.reason is FailureReason.INVALID_SPEC


def _cut(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])


def _flipped(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def _of_another_format(folder: Path) -> None:
    _reconfigured(folder, {})
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 100)


def _of_another_model(folder: Path) -> None:
    _reconfigured(folder, {})
    file = folder / "adapter_model.safetensors"
    save_file({name: torch.zeros(*weights.shape, 2) for name, weights in load_file(file).items()}, file)


def _reconfigured(folder: Path, changes: dict[str, Any]) -> None:
    (folder.parent / "manifest.json").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE: dict[str, tuple[Callable[[Path], object], FailureReason, str]] = {
    "cut": (_cut, FailureReason.MODEL_INVALID, "is not the file that the manifest beside its folder names"),
    "flipped": (_flipped, FailureReason.MODEL_INVALID, "is not the file that the manifest beside its folder names"),
    "gone": (shutil.rmtree, FailureReason.MODEL_NOT_FOUND, "spec.lora.initialAdapterUri: "),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        FailureReason.MODEL_INVALID,
        "has no adapter_model.safetensors",
    ),
    "no safetensors": (
        _of_another_format,
        FailureReason.MODEL_INVALID,
        "its weights cannot be read",
    ),
    "of another model": (_of_another_model, FailureReason.MODEL_INVALID, "it was made for another base model"),
    "another method": (
        lambda folder: _reconfigured(folder, {"peft_type": "IA3"}),
        FailureReason.MODEL_INVALID,
        "is no LoRA adapter",
    ),
    "ranks by layer": (
        lambda folder: _reconfigured(folder, {"rank_pattern": {"q_proj": 2}}),
        FailureReason.INVALID_SPEC,
        "PEFT's rank_pattern",
    ),
    "changed base": (
        lambda folder: _reconfigured(folder, {"init_lora_weights": "pissa_niter_16"}),
        FailureReason.INVALID_SPEC,
        "changes the base weights",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_cannot_be_continued_from_is_refused(what: str, local_run: Runs, adapter: Path) -> None:
    damage, reason, said = DAMAGE[what]
    damage(adapter)

    with pytest.raises(TrainerError) as caught:
        _continued(local_run(QUESTIONS), adapter)()

    assert caught.value.reason is reason
    assert said in caught.value.message


def test_the_place_of_a_run_names_its_folder(local_run: Runs, adapter: Path) -> None:
    with pytest.raises(TrainerError, match=f"name the adapter's folder in it \\({adapter.name}\\)"):
        _continued(local_run(QUESTIONS), adapter.parent)()
