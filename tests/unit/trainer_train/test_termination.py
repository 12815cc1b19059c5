"""The termination message fits what the kubelet keeps, and keeps its beginning: the place and the fact come first."""

import json
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.termination import MAX_BYTES, Outcome, Termination

BEGINNING = "train.jsonl:7312: "


def _written(message: str, file: Path) -> bytes:
    Termination(outcome=Outcome.FAILED, reason=FailureReason.DATASET_INVALID, message=message).write(file)
    return file.read_bytes()


@pytest.mark.parametrize("letter", ["a", "é", "文", "😀", '"', "\n", "\x01"])
@pytest.mark.parametrize("count", [1300, 2200, 4096, 50_000])
def test_long_message_fills_the_room_from_its_beginning(letter: str, count: int, tmp_path: Path) -> None:
    message = BEGINNING + letter * count

    written = _written(message, tmp_path / "termination")

    said = json.loads(written)["message"]
    assert len(written) <= MAX_BYTES
    if said != message:
        assert said.startswith(BEGINNING + letter * 100)
        assert said.endswith("…")
        assert len(written) > MAX_BYTES - 12, "no room is left unused"


def test_message_that_fits_is_whole(tmp_path: Path) -> None:
    empty = len(_written("", tmp_path / "termination"))
    message = "a" * (MAX_BYTES - empty)

    assert json.loads(_written(message, tmp_path / "termination"))["message"] == message
