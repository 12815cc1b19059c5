"""Files and data sets as they are found: read as they were meant, or answered with what helps."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.examples import Conversation, Example
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

PLACES = StoreRegistry(StorageSpec(), None)
ROW = b'{"prompt": "a", "completion": "b"}\n'


def read(path: Path, content: object = None, **spec: Any) -> list[Example]:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    dataset = DatasetSpec.model_validate({"uri": f"file://{path}", **spec})
    return list(read_examples(dataset, dataset_objects(dataset, PLACES), PLACES))


def said(path: Path, content: object) -> str:
    with pytest.raises(TrainerError) as caught:
        read(path, content)
    return caught.value.message


TO_JSON = "DataFrame.to_json(path, orient='records', lines=True)"
ALPACA = {"instruction": "Now?", "input": "", "output": "Now."}
TOOL = {"type": "function", "function": {"name": "f", "description": "d"}}


def test_history_and_tools_of_an_alpaca_row_are_kept(tmp_path: Path) -> None:
    line = ALPACA | {"history": [["Before?", "Then."]], "system": "Be brief.", "tools": json.dumps([TOOL])}
    [example] = read(tmp_path / "d.json", [line])
    assert isinstance(example, Conversation)
    assert [(turn.role, turn.content) for turn in example.messages.turns] == [
        ("system", "Be brief."), ("user", "Before?"), ("assistant", "Then."), ("user", "Now?"), ("assistant", "Now."),
    ]  # fmt: skip
    assert list(example.messages.tools) == [TOOL]

    pq.write_table(pa.Table.from_pylist([line]), tmp_path / "d.parquet")
    [stored] = read(tmp_path / "d.parquet")
    assert isinstance(stored, Conversation)
    assert stored.messages == example.messages


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        ("Before?", "history: found the text 'Before?', expected a list of pairs"),
        ([["Before?"]], "history[0]: found a list of 1, expected a pair"),
        ([["Before?", ""]], "history[0][1]: found an empty text"),
    ],
)
def test_a_history_that_is_none_is_named(history: object, problem: str, tmp_path: Path) -> None:
    assert problem in said(tmp_path / "d.json", [ALPACA | {"history": history}])


def test_rows_of_another_history_are_no_duplicates(tmp_path: Path) -> None:
    lines = [ALPACA, ALPACA | {"history": []}, ALPACA | {"history": [["a", "b"]]}, ALPACA | {"tools": [TOOL]}]
    (tmp_path / "d.json").write_text(json.dumps(lines))
    dataset = DatasetSpec(uri=f"file://{tmp_path / 'd.json'}")
    scan = DatasetScan(dataset, dataset_objects(dataset, PLACES), PLACES)
    assert len(list(scan)) == 4
    assert scan.duplicates.count == 1


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "completion": "b", "system": "s", "id": 1}\n')
    dataset = DatasetSpec(uri=f"file://{tmp_path / 'd.jsonl'}")
    scan = DatasetScan(dataset, dataset_objects(dataset, PLACES), PLACES)
    list(scan)
    assert scan.unread == ["system", "id"]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ({"messages": [{"user": "u"}, {"bot": "b"}]}, "the turns have the keys user: name those of the speaker and of"),
        ({"dialog": [{"who": "u", "says": "b"}]}, "dataset.fields: {messages: dialog, role: …, content: …}"),
        ({"chat": [{"role": "user", "content": "b"}]}, "map it with dataset.fields: {messages: chat}"),
        ({"turns": ["a", "b"]}, 'write each turn of turns as an object, {"role": …, "content": …}'),
        ({"chat": "USER: a"}, "rename the columns, or map them with dataset.fields"),
        (
            {"system_prompt": "s", "question": "q", "response": "r"},
            "dataset.fields: {system: system_prompt, instruction: question, output: response}",
        ),
        # pandas' own forms of a table: split, index, columns
        ({"columns": ["prompt"], "index": [0], "data": [["a"]]}, TO_JSON),
        ({"0": {"prompt": "a"}, "1": {"prompt": "b"}}, TO_JSON),
        ({"prompt": {"0": "a"}, "completion": {"0": "b"}}, TO_JSON),
    ],
)  # fmt: skip
def test_the_remedy_fits_what_is_there(line: object, remedy: str, tmp_path: Path) -> None:
    assert remedy in said(tmp_path / "d.jsonl", line)


def test_contents_of_parts_are_read_from_parquet_too(tmp_path: Path) -> None:
    def text(said: str) -> dict[str, str | None]:
        return {"type": "text", "text": said}

    def turn(role: str, *parts: dict[str, str | None]) -> dict[str, object]:
        return {"role": role, "content": list(parts)}

    lines = [
        [turn("user", text("a"), text("b")), turn("assistant", text("c"))],
        [turn("user", {"type": "image", "text": None}), turn("assistant", text("c"))],
    ]
    pq.write_table(pa.table({"messages": lines[:1]}), tmp_path / "good.parquet")
    [example] = read(tmp_path / "good.parquet")
    assert isinstance(example, Conversation)
    assert [turn.content for turn in example.messages.turns] == ["a\nb", "c"]

    pq.write_table(pa.table({"messages": lines}), tmp_path / "bad.parquet")
    with pytest.raises(TrainerError, match=r"bad.parquet row 2 messages\[0\]\.content: .*parts other than text"):
        read(tmp_path / "bad.parquet")


def zstd(content: bytes) -> bytes:
    packed = pa.compress(content, codec="zstd", asbytes=True)
    assert isinstance(packed, bytes)
    return packed


def test_zstd_frames_that_are_to_be_skipped_may_stand_anywhere(tmp_path: Path) -> None:
    """pzstd writes one before each frame of data."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    assert len(read(tmp_path / "d.jsonl.zst", skipped + zstd(ROW) + skipped + zstd(ROW) + skipped)) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (ROW.decode().encode("utf-16"), "found UTF-16, expected UTF-8; convert it: iconv -f UTF-16"),
        (ROW.decode().encode("utf-16-le"), "found UTF-16, expected UTF-8; convert it: iconv -f UTF-16"),
        (ROW.decode().encode("utf-32"), "found UTF-32, expected UTF-8; convert it: iconv -f UTF-32"),
        (ROW.decode().encode("utf-32-be"), "found UTF-32, expected UTF-8; convert it: iconv -f UTF-32"),
        (b"\0" * 4096, "found NUL bytes and nothing else"),
        (ROW + b"\0" * 4096, "found NUL bytes at column 1"),
        ('{"text": "it\u2019s"}\n'.encode("cp1252"), "iconv -f WINDOWS-1252 -t UTF-8"),
    ],
)
def test_bytes_that_are_no_utf_8_are_answered_with_what_converts_them(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    assert problem in said(tmp_path / "d.jsonl", content)


def test_a_blank_before_a_quoted_field_is_named(tmp_path: Path) -> None:
    problem = said(tmp_path / "d.csv", b'prompt, completion\n"x", "y, z"\n')
    assert "expected 2, as many as the header names; remove the blank before the quote" in problem


def test_a_file_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "data") + b"/caf\xe9.jsonl")).write_bytes(ROW)
    with pytest.raises(TrainerError, match=r"data/caf\\udce9\.jsonl: found a name that .* is not UTF-8"):
        read(tmp_path / "data")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "this is preference data"),
        ({"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}, "this is preference data"),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, "token ids are not read"),
        ({"contents": [{"role": "user", "parts": [{"text": "a"}]}]}, "the turns have the keys role, parts"),
        ({"mapping": {"a": {}}, "current_node": "a"}, 'else write each row as {"messages": [{"role": "user"'),
    ],
)
def test_rows_of_another_kind_are_answered_with_what_helps(row: object, problem: str, tmp_path: Path) -> None:
    assert problem in said(tmp_path / "d.json", [row])


def test_lists_of_turns_without_a_key(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert 'put the list of turns under a key: {"messages": […]}' in said(tmp_path / "d.json", [turns, turns])


def test_parts_of_the_responses_api_are_text(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    ]
    [example] = read(tmp_path / "d.json", [{"messages": turns}])
    assert isinstance(example, Conversation)
    assert [turn.content for turn in example.messages.turns] == ["a", "b"]
