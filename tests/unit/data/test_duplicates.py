"""Rows that repeat are counted exactly, whatever the number of rows, up to a stated one."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

_KEYS = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-3, 3)


@given(keys=st.lists(_KEYS), at_once=st.integers(1, 5))
def test_a_repeated_key_is_counted_each_time(keys: list[int], at_once: int) -> None:
    counter = DuplicateCounter()
    for begin in range(0, len(keys), at_once):
        counter.add(keys[begin : begin + at_once])
    assert counter.count == len(keys) - len(set(keys))
    assert counter.complete


def test_nothing_is_forgotten_when_the_table_grows() -> None:
    dice = random.Random(0)
    keys = [dice.getrandbits(63) for _ in range(70_000)]
    counter = DuplicateCounter()
    counter.add(keys)
    assert counter.count == 0
    counter.add(keys)
    assert counter.count == len(keys)


def test_beyond_the_limit_the_count_is_the_least_there_can_be() -> None:
    counter = DuplicateCounter(remembered=100)
    counter.add([*range(1, 201), *range(1, 201)])
    assert (counter.count, counter.complete) == (100, False)


def turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"text": "a", "id": 1}, {"text": "a", "id": 2}, {"text": "b"}, {"id": 3, "text": "a"}], 2),
        ([{"prompt": "a", "completion": "bc"}, {"prompt": "ab", "completion": "c"}], 0),
        ([{"prompt": "a", "completion": "b"}, {"completion": "b", "prompt": "a"}], 1),
        ([{"instruction": "i", "output": "o"}, {"instruction": "i", "input": "", "output": "o"}], 1),
        ([{"instruction": "i", "output": "o"}, {"instruction": "i", "input": "x", "output": "o"}], 0),
        ([{"messages": turns("a", "b")}, {"messages": turns("a", "b", "c", "d")}, {"messages": turns("a", "b")}], 1),
        ([{"messages": turns("a", "b")}, {"messages": [turn | {"id": "x"} for turn in turns("a", "b")]}], 1),
        ([{"messages": turns("a", "b"), "tools": []}, {"messages": turns("a", "b")}], 1),
        ([{"text": "日本語"}, {"text": "日本"}, {"text": "日本語"}], 1),
        ([{"text": "a"}, {"text": 1}, {"text": 1}, {}], 0),  # rows with faults are none
    ],
)
def test_rows_repeat_when_they_train_the_same(tmp_path: Path, rows: list[object], expected: int) -> None:
    for name in ("1.jsonl", "2.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = StoreRegistry(StorageSpec(), None)

    def duplicates(uri: str) -> int:
        dataset = DatasetSpec(uri=uri)
        scan = DatasetScan(dataset, dataset_objects(dataset, places), places)
        sound = sum(1 for _ in scan)
        assert scan.duplicates.count <= sound
        return scan.duplicates.count

    assert duplicates(f"file://{tmp_path}/1.jsonl") == expected
    sound = len(rows) if {} not in rows else 1
    assert duplicates(f"file://{tmp_path}/") == 2 * sound - (sound - expected), "over all files"
