"""The formats one by one: what is read does not depend on how the bytes are cut, and files of several may be mixed."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.examples import Conversation, Example, PromptCompletion, Text
from finetune_trainer.data.formats.delimited import DelimitedRecords
from finetune_trainer.data.formats.json_document import JsonRecords
from finetune_trainer.data.formats.records import ExpectedRows, Records
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.base import ObjectReplacedError
from finetune_trainer.storage.registry import StoreRegistry
from s3server import S3Server

from .format_corpus import ROWS, parquet, zstd

pytestmark = pytest.mark.extras

PLACES = StoreRegistry(StorageSpec(), None)
CUTS = st.lists(st.integers(0, 400), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=5)


def read(**spec: object) -> list[Example]:
    dataset = DatasetSpec.model_validate(spec)
    return list(read_examples(dataset, dataset_objects(dataset, PLACES), PLACES))


def cut(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(content)) for place in cuts), len(content)]
    # An empty piece is the end of the stream, as it is for a file.
    return [content[start:end] for start, end in pairwise(edges) if end > start]


NO_ROWS = ExpectedRows(frozenset(), lambda _: False)


def rows_of(records: Records) -> list[object]:
    rows = [row for _, _, row in records]
    assert not [row for row in rows if isinstance(row, Fault)]
    return [row for row in rows if row is not None]


@given(rows=OBJECTS, cuts=CUTS, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_an_array_is_read_however_it_is_cut(
    rows: list[object], cuts: list[int], indent: int | None, ascii_only: bool
) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    records = JsonRecords(cut(content, cuts), 1 << 20, NO_ROWS)
    seen = []
    for number, offset, row in records:
        seen.append(row)
        assert number == len(seen)
        assert offset is not None
        assert content[offset : offset + 1] == b"{"
    assert seen == rows


@given(rows=OBJECTS.filter(bool), cuts=CUTS, before=JSON, after=JSON)
def test_rows_under_a_key_are_read_however_it_is_cut(
    rows: list[object], cuts: list[int], before: object, after: object
) -> None:
    def plain(value: object) -> object:
        """Not a second list of objects."""
        return {"value": value}

    document = {"before": plain(before), "rows": rows, "after": plain(after)}
    records = JsonRecords(cut(json.dumps(document).encode(), cuts), 1 << 20, NO_ROWS)
    assert rows_of(records) == rows


@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]))),
        max_size=6,
    ),
    cuts=CUTS,
    delimiter=st.sampled_from([",", "\t"]),
)
def test_what_the_csv_writer_wrote_is_read(rows: list[tuple[str, str]], cuts: list[int], delimiter: str) -> None:
    header = ("one", "two")
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    content = text.getvalue().encode()
    records = DelimitedRecords(cut(content, cuts), 1 << 20, delimiter)
    wanted = [row for row in rows if row != header]
    seen = [(number, offset, row) for number, offset, row in records if not isinstance(row, Fault)]
    assert [row for _, _, row in seen] == [dict(zip(header, row, strict=True)) for row in wanted]
    for number, offset, _ in seen:
        assert offset is not None
        assert content[:offset].count(b"\n") == number - 1
        assert content[offset : offset + 1] == b'"'


def test_a_prefix_may_hold_files_of_several_formats(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    (tmp_path / "b.csv").write_text("prompt,completion\nq,a\n")
    (tmp_path / "c.json").write_text(json.dumps({"data": [ROWS[1]]}))
    (tmp_path / "d.tsv.zst").write_bytes(zstd(b"prompt\tcompletion\nq\ta\n"))
    places = [(example.place.file, example.place.line) for example in read(uri=f"file://{tmp_path}/")]
    assert places == [("a.jsonl", 1), ("b.csv", 2), ("c.json", 1), ("d.tsv.zst", 2)]


def test_the_texts_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'completion,prompt\r\n"a ""b"", c","1\n2 \xc3\xa9"\r\n')
    [example] = read(uri=f"file://{tmp_path}/t.csv")
    assert isinstance(example, PromptCompletion)
    assert (example.prompt, example.completion) == ("1\n2 é", 'a "b", c')
    (tmp_path / "t.txt").write_bytes(b"  <s>[INST] a [/INST] \r\n")
    [example] = read(uri=f"file://{tmp_path}/t.txt")
    assert isinstance(example, Text)
    assert example.text == "  <s>[INST] a [/INST] "
    (tmp_path / "t.tsv").write_bytes(b"instruction\tinput\toutput\ndo\t\tdone\n")
    [example] = read(uri=f"file://{tmp_path}/t.tsv")
    assert isinstance(example, Conversation)
    assert [turn.content for turn in example.messages.turns] == ["do", "done"]


def test_parquet_is_read_from_s3_at_random(s3: S3Server, tmp_path: Path) -> None:
    texts = [os.urandom(1000).hex() for _ in range(6000)]
    content = parquet({"prompt": texts, "vector": [[0.5] * 100] * 6000, "completion": texts}, row_group_size=2500)
    s3.put("formats/t.parquet", content)
    places = StoreRegistry(StorageSpec(endpoint=s3.endpoint), s3server.mount(tmp_path / "keys", s3.admin))
    dataset = DatasetSpec(uri="s3://data/formats/t.parquet", sha256=hashlib.sha256(content).hexdigest())
    objects = dataset_objects(dataset, places)
    rows = list(read_examples(dataset, objects, places))
    assert [row.completion for row in rows if isinstance(row, PromptCompletion)] == texts

    s3.put("formats/t.parquet", parquet({"prompt": texts[:10], "completion": texts[:10]}))
    with pytest.raises(ObjectReplacedError):
        list(read_examples(dataset, objects, places))


def test_a_parquet_file_that_is_replaced_meanwhile_is_no_good_one(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(parquet({"text": ["a"] * 1000}))
    dataset = DatasetSpec(uri=f"file://{path}")
    examples = read_examples(dataset, dataset_objects(dataset, PLACES), PLACES)
    next(examples)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ObjectReplacedError):
        list(examples)


def test_the_checksum_of_a_parquet_file_is_that_of_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(parquet({"text": ["a"] * 1000}))
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read(uri=f"file://{path}", sha256=good)) == 1000
    with pytest.raises(TrainerError, match=f"found SHA-256 {good}"):
        read(uri=f"file://{path}", sha256="0" * 64)


_SCAN = """
import re, sys
from pathlib import Path
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

places = StoreRegistry(StorageSpec(), None)
dataset = DatasetSpec.model_validate({"uri": sys.argv[1]})
scan = DatasetScan(dataset, dataset_objects(dataset, places), places)
sound = sum(1 for _ in scan)
assert not scan.findings.count, scan.findings.message()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
heavy = {"pandas", "torch", "transformers", "datasets"} & set(sys.modules)
print(sound, peak // 1024, *heavy)
"""


def peak_of(path: Path) -> tuple[int, int]:
    """Rows, and the peak of memory in MiB, of a pass in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, f"file://{path}"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trainer")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows, peak, *heavy = done.stdout.split()
    assert not heavy
    return int(rows), int(peak)


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.jsonl.zst", "t.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    row, count = {"prompt": "p" * 40_000, "completion": "c" * 40_000}, 3_400
    path = tmp_path / name
    with path.open("wb") as file:
        line = json.dumps(row).encode()
        match name:
            case "t.json":
                file.write(b'{"data": [')
                file.writelines((b"," if index else b"") + line for index in range(count))
                file.write(b"]}")
            case "t.csv":
                file.write(b"prompt,completion\n")
                file.writelines(f"{row['prompt']},{row['completion']}\n".encode() for _ in range(count))
            case "t.parquet":
                # One row group: it is larger than what may be held.
                block = pa.table({"text": [os.urandom(3000).hex() for _ in range(200)]})
                with pq.ParquetWriter(file, block.schema, use_dictionary=False, compression="none") as writer:
                    writer.write_table(pa.concat_tables([block] * 225).combine_chunks(), row_group_size=45_000)
                count = 45_000
            case _:
                lines = "".join(f'{{"text": "{os.urandom(3000).hex()}"}}\n' for _ in range(200))
                file.writelines([zstd(lines.encode())] * 200)
                count = 40_000
    rows, peak = peak_of(path)
    assert rows == count
    assert peak <= 256


def test_without_arrow_a_file_that_needs_it_is_refused_and_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n')
    assert len(read(uri=f"file://{tmp_path}/t.jsonl")) == 1
    for name, content in {"t.parquet": parquet({"text": ["a"]}), "t.jsonl.zst": zstd(b'{"text": "a"}\n')}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainerError, match="pyarrow is not installed") as raised:
            read(uri=f"file://{tmp_path}/{name}")
        assert raised.value.reason is FailureReason.NOT_SUPPORTED


def test_messages_after_reading_name_the_row_too(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(parquet({"text": ["a", "b"]}))
    (tmp_path / "t.txt").write_bytes(b"a\n")
    uris = [f"file://{tmp_path}/t.parquet", f"file://{tmp_path}/t.txt"]
    assert [str(example.place) for example in read(uris=uris)] == ["t.parquet row 1", "t.parquet row 2", "t.txt:1"]
