"""What is read from good data, however it is cut into pieces and files; and with how much memory."""

import gzip
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.examples import Conversation, Example, Message, Messages, PromptCompletion, RowLocation, Text
from finetune_trainer.data.formats.json_line import parse_carefully, parse_row
from finetune_trainer.data.formats.lines import LineSplitter
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

PLACES = StoreRegistry(StorageSpec(), None)


def read(**spec: object) -> list[Example]:
    dataset = DatasetSpec.model_validate(spec)
    return list(read_examples(dataset, dataset_objects(dataset, PLACES), PLACES))


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def messages(*turns: tuple[str, str]) -> Messages:
    return Messages(tuple(Message(role=role, content=content) for role, content in turns))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": " a\n"}, lambda place: Text(place=place, text=" a\n")),
        ({"prompt": "p ", "completion": " c"}, lambda at: PromptCompletion(place=at, prompt="p ", completion=" c")),
        (
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "id": "x"}]},
            lambda place: Conversation(place=place, messages=messages(("user", "u"), ("assistant", "a"))),
        ),
        (
            {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]},
            lambda place: Conversation(place=place, messages=messages(("user", "u"), ("assistant", "a"))),
        ),
        (
            {"instruction": "do", "input": "this", "output": "done"},
            lambda place: Conversation(place=place, messages=messages(("user", "do\n\nthis"), ("assistant", "done"))),
        ),
        (
            {"instruction": "do", "input": "", "output": "done"},
            lambda place: Conversation(place=place, messages=messages(("user", "do"), ("assistant", "done"))),
        ),
    ],
)
def test_examples(tmp_path: Path, row: object, expected: object) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\n" + lines(row))
    assert callable(expected)
    assert read(uri=f"file://{tmp_path}/t.jsonl") == [expected(RowLocation(file="t.jsonl", line=2))]


def test_a_prefix_is_read_in_the_order_of_names_without_markers(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/2.jsonl", "a/1.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines({"text": name}))
    for marker in ("_SUCCESS", ".DS_Store", "a/_temporary/0/part.jsonl", ".ipynb_checkpoints/b-checkpoint.jsonl"):
        (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / marker).write_bytes(b"\0\1")
    places = [(example.place.file, example.place.line) for example in read(uri=f"file://{tmp_path}/")]
    assert places == [("a/1.jsonl", 1), ("a/2.jsonl", 1), ("b.jsonl", 1)]


def test_a_repository_copied_to_a_prefix_has_files_without_rows(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines({"text": "t"}))
    for name in (
        "README.md",
        "LICENSE",
        "dataset_info.json",
        "state.json",
        "load.py",
        "data.yaml",
        "train.jsonl.sha256",
    ):
        (tmp_path / name).write_bytes(b"not a row")
    assert len(read(uri=f"file://{tmp_path}/")) == 1


@pytest.mark.parametrize("held_out", ["test.jsonl", "data/validation-00000-of-00001.jsonl", "dev/part.jsonl"])
def test_splits_side_by_side_are_not_trained_together(held_out: str, tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", held_out):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(lines({"text": name}))

    with pytest.raises(TrainerError, match=f"found the splits of a data set side by side.*{held_out}.*dataset.uris"):
        read(uri=f"file://{tmp_path}/")
    assert len(read(uri=f"file://{tmp_path}/{held_out}")) == 1


def test_what_save_to_disk_wrote_is_one_problem(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"text": "a"}]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(TrainerError) as caught:
        read(uri=f"file://{tmp_path}/saved/")
    assert caught.value.message.startswith("1 problem")
    assert "an Arrow stream, as Dataset.save_to_disk writes it" in caught.value.message
    assert "Dataset.to_parquet" in caught.value.message


def test_a_prefix_may_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    (tmp_path / "_data").mkdir()
    (tmp_path / "_data" / "t.jsonl").write_bytes(lines({"text": "t"}))
    assert len(read(uri=f"file://{tmp_path}/_data/")) == 1


def test_places_are_read_in_the_order_of_the_list(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_bytes(lines({"text": name}))
    uris = [f"file://{tmp_path}/two.jsonl", f"file://{tmp_path}/one.jsonl"]
    assert [example.place.file for example in read(uris=uris)] == ["two.jsonl", "one.jsonl"]


def test_nothing_is_yielded_after_the_first_problem(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(lines({"text": "a"}, {"text": 1}, {"text": "b"}, {"text": 2}))
    dataset = DatasetSpec(uri=f"file://{tmp_path}/t.jsonl")
    seen: list[Example] = []
    with pytest.raises(TrainerError, match=r"2 problems[\s\S]*t\.jsonl:2[\s\S]*t\.jsonl:4"):
        seen.extend(read_examples(dataset, dataset_objects(dataset, PLACES), PLACES))
    assert [example.place.line for example in seen] == [1]


@given(content=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200)), longest=st.integers(1, 50))
def test_lines_do_not_depend_on_the_pieces(content: bytes, cuts: list[int], longest: int) -> None:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [content[start:end] for start, end in pairwise(edges)]
    expected = content.split(b"\n")
    if not expected[-1]:
        expected.pop()
    offset = 0
    splitter = LineSplitter(pieces, longest)
    found = [line for line in splitter if line[0] == splitter.number]
    assert len(found) == len(expected)
    blocks = [(number, start, block) for number, start, block in LineSplitter(pieces, longest).blocks()]
    lined = [line for _, _, block in blocks for line in ([None] if block is None else block)]
    assert lined == [line for _, _, line in found]
    assert all(found[number - 1][:2] == (number, start) for number, start, _ in blocks)
    for number, (line, wanted) in enumerate(zip(found, expected, strict=True), 1):
        assert line == (number, offset, wanted if len(wanted) <= longest else None)
        offset += len(wanted) + 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(row=st.dictionaries(st.text(), _JSON, max_size=4), ascii_only=st.booleans())
def test_every_json_object_is_read_as_the_standard_library_does(row: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(row, ensure_ascii=ascii_only)
    assert parse_row(text.encode("utf-8", "surrogatepass")) == json.loads(text)


_NUMBERS = ("1e400", "-1e400", "-0", "-0.0", "1E5", "1.0", "0.1e-400", "9" * 30, "9" * 4300, "-" + "9" * 4300)
_ODD = ('"\\u0000"', '"\x7f"', '"\\ud83d\\ude00"', '"\\ud800"', "[" * 150 + "]" * 150, "[" * 300 + "]" * 300, '"\\/"')


@pytest.mark.parametrize("value", [*_NUMBERS, *_ODD], ids=lambda value: value[:12])
def test_the_fast_parser_gives_what_the_careful_one_gives(value: str) -> None:
    line = f'{{"a": {value}, "b": [{value}]}}\r'.encode()
    assert repr(parse_row(line)) == repr(parse_carefully(line))


@pytest.mark.parametrize(
    "value", ["01", "1.", ".5", "+1", "NaN", "-Infinity", "9" * 4301, '"\t"', '"\\x"', '{"c": 1, "\\u0063": 2}', "[1,]"]
)
def test_the_fast_parser_takes_nothing_that_is_refused(value: str) -> None:
    with pytest.raises(FaultError):
        parse_row(f'{{"a": {value}}}'.encode())


_SCAN = """
import re, sys
from pathlib import Path
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

places = StoreRegistry(StorageSpec(), None)
dataset = DatasetSpec.model_validate({"uri": sys.argv[1], "limits": {"maxCompressionRatio": 10000}})
scan = DatasetScan(dataset, dataset_objects(dataset, places), places)
sound = sum(1 for _ in scan)
# Not ru_maxrss: it is inherited through fork and exec, so it would be the test runner's own peak.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(sound, scan.bytes, peak // 1024)
"""


@pytest.mark.parametrize("longest", [1000, 8_000_000])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, longest: int) -> None:
    row = lines({"text": "😀" + "x" * longest})
    rows = 270_000_000 // len(row)
    with gzip.open(tmp_path / "t.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(rows):
            file.write(row)
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, f"file://{tmp_path}/t.jsonl.gz"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trainer")},
        capture_output=True,
        text=True,
        check=True,
    )
    sound, size, peak = map(int, done.stdout.split())
    assert (sound, size) == (rows, rows * len(row))
    assert peak <= 256


_PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"null",
        b"NaN",
        b"1e9",
        b"\xef\xbb\xbf",
        b"\xff",
    ]
)


@given(
    row=st.dictionaries(st.sampled_from(["prompt", "completion", "text", "messages"]), _JSON, max_size=3),
    cuts=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5), _PIECES | st.binary(max_size=3)), max_size=4),
)
def test_a_mutated_line_is_a_row_or_a_fault(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, object], cuts: list[tuple[int, int, bytes]]
) -> None:
    line = json.dumps(row).encode("utf-8", "surrogatepass")
    for start, removed, put in cuts:
        line = line[:start] + put + line[start + removed :]
    path = tmp_path_factory.mktemp("mutated") / "t.jsonl"
    path.write_bytes(lines({"prompt": "a", "completion": "b"}) * 3 + line + b"\n")
    dataset = DatasetSpec(uri=f"file://{path}")
    scan = DatasetScan(dataset, dataset_objects(dataset, PLACES), PLACES)
    sound = [number for _, _, number, _ in scan]
    assert sound[:3] == [1, 2, 3]
    for problem in scan.findings.problems:
        assert problem.line >= 4
        assert problem.expected
        assert problem.to_json().encode()
    assert scan.findings.count or len(sound) >= 4 or scan.blank_lines
