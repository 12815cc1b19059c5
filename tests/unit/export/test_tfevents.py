"""TensorBoard's file, read back by the definition of its format: records, checksums, protobuf messages."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_trainer.contract.history import HistoryEntry
from finetune_trainer.export.tfevents import crc32c, event_file, record
from unit.export.runs import HISTORY

BEGAN = 1.75e9


@pytest.mark.parametrize(
    ("content", "checksum"),
    [
        # RFC 3720, appendix B.4, and the check value of the CRC catalogue.
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_checksum_is_castagnolis(content: bytes, checksum: int) -> None:
    assert crc32c(content) == checksum


def test_record_is_the_one_that_tensorflow_writes() -> None:
    # The first record of any file: tf.summary.create_file_writer at the time 0.
    event = b"\x09" + bytes(8) + b"\x1a\x0dbrain.Event:2"

    assert record(event)[:12].hex() == "1800000000000000a37f4b22"


def test_values_are_read_back() -> None:
    version, *events = [_message(content) for content in _records(event_file(HISTORY, BEGAN))]

    assert version == {1: [BEGAN], 3: [b"brain.Event:2"]}
    assert [event[2] for event in events] == [[entry.step] for entry in HISTORY]
    assert [event[1] for event in events] == [[entry.wall_time] for entry in HISTORY]
    second = _scalars(events[1])
    assert set(second) == {"train/loss", "train/learning_rate", "train/grad_norm", "train/tokens_per_second",
                           "eval/loss"}  # fmt: skip
    assert second["train/loss"] == 2.0
    assert second["eval/loss"] == 2.5
    assert second["train/learning_rate"] == pytest.approx(1e-4, rel=1e-6)


def test_steps_and_lengths_of_several_bytes() -> None:
    history = [HistoryEntry(step=300_000, loss=1.0, wall_time=1.0), HistoryEntry(step=300_001, loss=1e300)]

    _, first, second = [_message(content) for content in _records(event_file(history, BEGAN))]

    assert (first[2], second[2]) == ([300_000], [300_001])
    assert second[1] == [BEGAN], "without a time of its own"
    assert _scalars(second)["train/loss"] == float("inf"), "32 bits hold no more"


def _records(file: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(file):
        (length,) = struct.unpack_from("<Q", file, place)
        assert _unmasked(struct.unpack_from("<I", file, place + 8)[0]) == crc32c(file[place : place + 8])
        content = file[place + 12 : place + 12 + length]
        assert _unmasked(struct.unpack_from("<I", file, place + 12 + length)[0]) == crc32c(content)
        yield content
        place += 16 + length


def _unmasked(masked: int) -> int:
    turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF


def _message(content: bytes) -> dict[int, list[Any]]:
    """Field number -> values; by the protobuf encoding's definition."""
    found: dict[int, list[Any]] = {}
    place = 0
    value: Any
    while place < len(content):
        key, place = _varint(content, place)
        match key & 7:
            case 0:
                value, place = _varint(content, place)
            case 1:
                (value,), place = struct.unpack_from("<d", content, place), place + 8
            case 2:
                length, place = _varint(content, place)
                value, place = content[place : place + length], place + length
            case 5:
                (value,), place = struct.unpack_from("<f", content, place), place + 4
            case kind:
                raise AssertionError(kind)
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place


def _scalars(event: dict[int, list[Any]]) -> dict[str, float]:
    (summary,) = event[5]
    values = [_message(value) for value in _message(summary)[1]]
    return {value[1][0].decode(): value[2][0] for value in values}
