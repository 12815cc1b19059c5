"""TensorBoard's event file, written without TensorFlow.

The file is a row of records (tensorflow/core/lib/io/record_writer): the length as uint64, its masked CRC-32C, the
bytes, their masked CRC-32C, all little-endian. The bytes are `Event` messages of tensorflow/core/util/event.proto; five
of its fields are needed, so the protobuf encoding (varints and fixed-width numbers behind a tag) is done here.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping

from finetune_trainer.contract.history import HistoryEntry

_VERSION = b"brain.Event:2"
_CASTAGNOLI = 0x82F63B78
"""The polynomial of CRC-32C, bits reversed (RFC 3720, appendix B.4)."""

_TAGS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "tokens_per_second": "train/tokens_per_second",
    "epoch": "train/epoch",
    "eval_loss": "eval/loss",
    "reward_margin": "train/rewards/margins",
    "reward_accuracy": "train/rewards/accuracies",
    "eval_reward_margin": "eval/rewards/margins",
    "eval_reward_accuracy": "eval/rewards/accuracies",
}
"""Field of an entry -> its name in TensorBoard; those of transformers' own callback where it has one."""


def event_file(history: Iterable[HistoryEntry], began: float) -> bytes:
    """The event file of a history.

    Args:
        history: the entries, in the order of steps.
        began: when it began, seconds since 1970; also the time of entries without one.
    """
    return b"".join(record(event) for event in _events(history, began))


def record(content: bytes) -> bytes:
    """One record with its checksums."""
    length = struct.pack("<Q", len(content))
    return b"".join([length, _u32(_masked(crc32c(length))), content, _u32(_masked(crc32c(content)))])


def crc32c(content: bytes) -> int:
    """CRC-32C (Castagnoli) of the bytes."""
    value = 0xFFFFFFFF
    for byte in content:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def _events(history: Iterable[HistoryEntry], began: float) -> Iterator[bytes]:
    yield _double(1, began) + _bytes(3, _VERSION)
    for entry in history:
        values = {tag: value for field, tag in _TAGS.items() if (value := getattr(entry, field)) is not None}
        if values:
            time = entry.wall_time if entry.wall_time is not None else began
            yield _double(1, time) + _varint(2, entry.step) + _bytes(5, _summary(values))


def _summary(values: Mapping[str, float]) -> bytes:
    """`Summary`: a `Value` (tag = 1, simple_value = 2) for each name."""
    return b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in values.items())


def _double(field: int, value: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    # The format has 32 bits; what does not fit is infinite there.
    fits = abs(value) <= 3.4028234e38
    return _key(field, 5) + struct.pack("<f", value if fits else float("inf") * (1 if value > 0 else -1))


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _base128(len(content)) + content


def _varint(field: int, value: int) -> bytes:
    return _key(field, 0) + _base128(value)


def _key(field: int, kind: int) -> bytes:
    return _base128(field << 3 | kind)


def _base128(value: int) -> bytes:
    """A non-negative number in groups of seven bits, the lowest first."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _masked(crc: int) -> int:
    """The checksum rotated right by 15 bits plus a constant, so that a nested record has another one."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_TABLE = _table()
