"""The termination message fits what the kubelet keeps, and keeps its beginning: the place and the fact come first."""

import json
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import MAX_BYTES, Outcome, OutputRecord, Termination

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
    if len(said) < len(message):
        shown = "\\x01" if letter == "\x01" else letter
        assert said.startswith(BEGINNING + shown * 100)
        assert said.endswith("…")
        assert len(written) > MAX_BYTES - 12, "no room is left unused"


def test_message_that_fits_is_whole(tmp_path: Path) -> None:
    empty = len(_written("", tmp_path / "termination"))
    message = "a" * (MAX_BYTES - empty)

    assert json.loads(_written(message, tmp_path / "termination"))["message"] == message


LONG = "s3://" + "p" * 1019
FULL = OutputRecord(
    uri=LONG,
    manifest_uri=LONG,
    digest="sha256:" + "0" * 64,
    size_bytes=1,
    base_model="org/name",
    rank=8,
    target_modules=["m" * 100] * 256,
    metrics={f"{number:064}": 0.5 for number in range(64)},
)
PROGRESS = Progress(stage=Stage.TRAINING, step=1, waiting_for="w" * 1000)


@pytest.mark.parametrize("message", ["", "x" * 4000])
@pytest.mark.parametrize("merged", [None, LONG])
def test_a_success_with_more_than_fits_keeps_its_addresses(message: str, merged: str | None, tmp_path: Path) -> None:
    output = FULL.model_copy(update={"merged_uri": merged})
    ended = Termination(
        outcome=Outcome.SUCCEEDED, fingerprint="f" * 64, message=message, output=output, progress=PROGRESS
    )

    ended.write(tmp_path / "termination")

    written = (tmp_path / "termination").read_bytes()
    assert len(written) <= MAX_BYTES
    said = Termination.read(written.decode())
    assert said is not None
    assert said.output is not None
    assert said.output.to_dict().items() >= {"uri": LONG, "manifestUri": LONG, "rank": 8}.items()


def test_addresses_that_cannot_fit_are_a_failure_that_says_so(tmp_path: Path) -> None:
    wide = "s3://" + "\N{CJK UNIFIED IDEOGRAPH-6587}" * 1000
    output = FULL.model_copy(update={"uri": wide, "manifest_uri": wide})

    Termination(outcome=Outcome.SUCCEEDED, output=output).write(tmp_path / "termination")

    said = Termination.read((tmp_path / "termination").read_text())
    assert said is not None
    assert (said.outcome, said.reason) == (Outcome.FAILED, FailureReason.INTERNAL)
    assert "output.uri" in said.message


def test_control_characters_end_here(tmp_path: Path) -> None:
    file = tmp_path / "termination"
    _written("train\x1b]0;evil\x07.jsonl\r\n2 rows\rOK \u202egnp.exe \ud800", file)

    assert json.loads(file.read_bytes())["message"] == (
        "train\\x1b]0;evil\\x07.jsonl\n2 rows\\rOK \\u202egnp.exe \\ud800"
    )
