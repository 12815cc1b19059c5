"""The process: exit code, termination message, one sentence instead of a traceback; all without torch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.layout import RECIPE_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.termination import Outcome, Termination
from unit.trainer_train.recipes import recipe

HEAVY = ("torch", "transformers", "datasets", "numpy", "boto3")
# Prints the heavy modules that the process has loaded, as its last line.
PROGRAM = f"""
import os, sys
from finetune_trainer.__main__ import main
code = main(sys.argv[1:], os.environ)
print([name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


def _train(folder: Path, content: str | None) -> tuple[subprocess.CompletedProcess[str], Termination]:
    file, said = folder / "recipe.json", folder / "termination"
    if content is not None:
        file.write_text(content)
    environment = {**os.environ, RECIPE_ENV: str(file), WORK_ENV: str(folder), TERMINATION_ENV: str(said)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    message = Termination.read(said.read_text())
    assert message is not None
    return done, message


def _local(folder: Path, **sections: Any) -> str:
    places = {
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {"uri": f"file://{folder}/train.jsonl"},
        "output": {"uri": f"file://{folder}/out"},
    }
    return recipe(**{name: places.get(name, {}) | sections.get(name, {}) for name in {*places, *sections}}).to_json()


def test_every_wrong_field_is_named_and_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    wrong = json.loads(recipe().to_json())
    wrong["lora"]["rank"], wrong["training"]["learningRate"], wrong["colour"] = 0, "fast", "red"

    done, message = _train(tmp_path, json.dumps(wrong))

    assert (done.returncode, message.reason) == (ExitCode.INVALID_SPEC, FailureReason.INVALID_SPEC)
    assert message.outcome is Outcome.FAILED
    for part in (
        "lora.rank: should",
        "(found 0)",
        "training.learningRate",
        "(found 'fast')",
        "colour",
        "(found 'red')",
    ):
        assert part in message.message
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_recipe_that_is_none(tmp_path: Path, content: str | None) -> None:
    done, message = _train(tmp_path, content)

    assert (done.returncode, message.reason) == (ExitCode.INVALID_SPEC, FailureReason.INVALID_SPEC)
    assert "Traceback" not in done.stderr


def test_contradicting_fields_are_refused(tmp_path: Path) -> None:
    done, message = _train(tmp_path, _local(tmp_path, training={"batchSize": 4, "microBatchSize": 3}))
    assert (done.returncode, message.reason) == (ExitCode.INVALID_SPEC, FailureReason.INVALID_SPEC)


def test_missing_data_and_missing_model(tmp_path: Path) -> None:
    done, message = _train(tmp_path, _local(tmp_path))
    assert (done.returncode, message.reason) == (ExitCode.DATASET_NOT_FOUND, FailureReason.DATASET_NOT_FOUND)

    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    done, message = _train(tmp_path, _local(tmp_path))
    assert (done.returncode, message.reason) == (ExitCode.MODEL_NOT_FOUND, FailureReason.MODEL_NOT_FOUND)


def test_incomplete_model_lists_all_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickle")
    (tmp_path / "model" / "generation_config.json").write_text("{}")

    done, message = _train(tmp_path, _local(tmp_path))

    assert (done.returncode, message.reason) == (ExitCode.MODEL_INVALID, FailureReason.MODEL_INVALID)
    for part in ("config.json", "model.safetensors", "tokenizer.json"):
        assert part in message.message


def test_unknown_error_is_a_sentence_and_its_traceback_stands_in_the_log(tmp_path: Path) -> None:
    # A work directory that is none: nobody's foreseen cause.
    file, said = tmp_path / "recipe.json", tmp_path / "termination"
    file.write_text(_local(tmp_path))
    environment = {**os.environ, RECIPE_ENV: str(file), WORK_ENV: str(file), TERMINATION_ENV: str(said)}

    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer"], env=environment, capture_output=True, text=True, check=False
    )

    message = Termination.read(said.read_text())
    assert message is not None
    assert (done.returncode, message.reason) == (ExitCode.INTERNAL, FailureReason.INTERNAL)
    assert message.message.startswith("NotADirectoryError: ")
    assert "Traceback" in done.stderr


def test_termination_message_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, RECIPE_ENV: str(tmp_path / "none"), TERMINATION_ENV: str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == ExitCode.INVALID_SPEC
    assert "Traceback" not in done.stderr


def test_first_signal_asks_and_the_second_one_ends() -> None:
    program = (
        "import signal; from finetune_trainer.__main__ import stop_on_sigterm\n"
        "stop = stop_on_sigterm(); print('ready', flush=True); stop.wait(); print('told', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert said.readline() == "told\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ["expandable_segments:True", None]),
        ({"PYTORCH_ALLOC_CONF": "backend:native"}, ["backend:native", None]),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}, [None, "backend:native"]),
    ],
    ids=["unset", "set", "set by its old name"],
)
def test_segments_of_gpu_memory_can_grow_unless_the_user_says_otherwise(
    given: dict[str, str], found: list[str | None], tmp_path: Path
) -> None:
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    program = f"""
import json, os, sys
from finetune_trainer.__main__ import main
main([], os.environ)
print(json.dumps([*map(os.environ.get, {names!r}), "torch" in sys.modules]))
"""
    file = tmp_path / "recipe.json"
    file.write_text("{}")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, RECIPE_ENV: str(file), **given},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip

    assert json.loads(done.stdout.splitlines()[-1]) == [*found, False]
