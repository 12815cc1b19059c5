"""Pickled DataFrames of several pandas versions are read without pandas; other pickles are refused without being run.

pickles/ holds frames like `frame_of_every_kind`, pickled by the pandas and the protocol in their names, with numpy 1.x.
"""

import contextlib
import io
import pickle
import pickletools
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.formats import pickled_frame
from finetune_trainer.data.formats.pickled_array import Opaque
from finetune_trainer.data.formats.pickled_frame import PickledFrameRecords
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.schemas.row_meaning import expected_rows
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
PICKLES = sorted((Path(__file__).parent / "pickles").glob("*.pkl"))
PROTOCOLS = range(6)


def frame_of_every_kind() -> Any:
    frame = pd.DataFrame({"prompt": ["2 + 2?", "naïve 😀?", "last"], "completion": [" 4", " yes", " end"]})
    frame["python"] = frame["completion"].astype(pd.StringDtype("python"))
    frame["arrow"] = frame["completion"].astype(pd.StringDtype("pyarrow"))
    frame["category"] = pd.Categorical(["x", "y", "x"])
    frame["number"] = [1, 2, 3]
    frame["real"] = [0.5, None, 2.0]
    frame["flag"] = [True, False, True]
    frame["masked"] = pd.array([1, None, 3], dtype="Int64")
    frame["time"] = frame["time too"] = pd.to_datetime(["2020-01-01"] * 3)
    frame["zoned"] = frame["time"].dt.tz_localize("UTC")
    frame["object"] = np.array(["a", None, np.nan], dtype=object)
    moments = [pd.Timestamp("2020-01-01"), pd.NaT, pd.Timestamp("2020-01-01", tz="UTC")]
    frame["moment"] = pd.Series(moments, dtype=object)
    frame["scalars"] = pd.Series([np.float64(1), np.int32(3), pd.NA], dtype=object)
    frame["messages"] = [TURNS, TURNS, TURNS]
    turns = np.empty(2, dtype=object)
    turns[:] = TURNS
    frame["arrays"] = pd.Series([turns, turns, turns])
    return frame


def rows_of(content: bytes, **spec: Any) -> list[Any]:
    dataset = DatasetSpec.model_validate({"uri": "file:///t.pkl", "format": "pandas", **spec})
    return [
        row
        for _, _, row in PickledFrameRecords(iter([content]), dataset.limits, expected_rows(dataset), lambda _: None)
    ]


def column(content: bytes, name: str) -> list[object]:
    return [row[name] for row in rows_of(content, fields={"text": name})]


def check_every_kind(content: bytes) -> None:
    assert column(content, "prompt") == ["2 + 2?", "naïve 😀?", "last"]
    for name in ("completion", "python", "arrow"):
        assert column(content, name) == [" 4", " yes", " end"]
    assert column(content, "category") == ["x", "y", "x"]
    assert column(content, "object") == ["a", None, None]
    assert column(content, "number") == [1, 2, 3]
    assert column(content, "real") == [0.5, None, 2.0]
    assert column(content, "flag") == [True, False, True]
    assert column(content, "messages") == column(content, "arrays") == [TURNS] * 3
    assert column(content, "scalars")[2] is column(content, "moment")[1] is None
    for name in ("time", "zoned", "masked"):
        kinds = {type(value).__name__ for value in column(content, name)}
        assert kinds <= {"DatetimeArray", "IntegerArray", "numpy M8"}


@pytest.mark.parametrize("path", PICKLES, ids=lambda path: path.stem)
def test_frames_of_older_pandas_are_read(path: Path) -> None:
    check_every_kind(path.read_bytes())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_frames_of_this_pandas_are_read(protocol: int) -> None:
    check_every_kind(pickle.dumps(frame_of_every_kind(), protocol=protocol))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_part_of_a_frame_is_read(protocol: int) -> None:
    frame = frame_of_every_kind()
    part = frame[frame.number > 1].set_index("time")[["completion", "prompt", "arrow", "object"]]
    content = pickle.dumps(part, protocol=protocol)
    assert column(content, "prompt") == ["naïve 😀?", "last"]
    assert column(content, "arrow") == [" yes", " end"]
    joined = pickle.dumps(pd.concat([frame, part]), protocol=protocol)
    assert column(joined, "arrow") == [" 4", " yes", " end", " yes", " end"]


def test_a_frame_is_read_end_to_end(tmp_path: Path) -> None:
    for name in ("t.pkl", "t.pkl.gz"):
        frame_of_every_kind()[["messages", "number"]].to_pickle(tmp_path / name)
        dataset = DatasetSpec.model_validate({"uri": f"file://{tmp_path}/{name}", "format": "pandas"})
        places = StoreRegistry(StorageSpec(), None)
        rows = list(read_examples(dataset, dataset_objects(dataset, places), places))
        assert [(row.place.file, row.place.line) for row in rows] == [(name, 1), (name, 2), (name, 3)]


def test_a_bad_value_is_named_by_row_and_column(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", 7, None, "b"]}, dtype=object).to_pickle(tmp_path / "t.pkl")
    dataset = DatasetSpec.model_validate({"uri": f"file://{tmp_path}/t.pkl", "format": "pandas"})
    places = StoreRegistry(StorageSpec(), None)
    with pytest.raises(TrainerError) as raised:
        list(read_examples(dataset, dataset_objects(dataset, places), places))
    assert raised.value.reason is FailureReason.DATASET_INVALID
    assert "t.pkl row 2 text: found the number 7, expected text" in raised.value.message
    assert "t.pkl row 3 text: found null" in raised.value.message


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._reduced = (function, args)

    def __reduce__(self) -> Any:
        return self._reduced


def call(module: str, name: str, *args: object) -> bytes:
    """A pickle that calls a function by name, as an attacker writes it."""
    arguments = pickletools.optimize(pickle.dumps(args, protocol=2))[2:-1]
    return (
        b"\x80\x04"
        + b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
        + (b"\x93" + arguments + b"R.")
    )


def in_a_cell(content: bytes) -> bytes:
    """The call as a value among those of a good frame."""
    good = pickle.dumps(pd.DataFrame({"text": ["a", "CELL"]}, dtype=object), protocol=4)
    cell = b"\x8c\x04CELL\x94"
    assert cell in good
    assert good[2:3] == b"\x95"
    # Without the frame that gives the length, which is wrong now.
    return good[:2] + good[11:].replace(cell, content[2:-1] + b"\x94")


ATTACKS = {
    "os.system": call("os", "system", "touch CANARY"),
    "posix.system": call("posix", "system", "touch CANARY"),
    "builtins.eval": call("builtins", "eval", "open('CANARY', 'w')"),
    "builtins.exec": call("builtins", "exec", "open('CANARY', 'w')"),
    "builtins.getattr": call("builtins", "getattr", "", "join"),
    "builtins.open": call("builtins", "open", "CANARY", "w"),
    "numpy.load": call("numpy", "load", "CANARY"),
    "numpy.memmap": call("numpy", "memmap", "CANARY", "uint8", "w+", 0, 10),
    "numpy.fromfile": call("numpy", "fromfile", "CANARY"),
    "pandas.read_pickle": call("pandas", "read_pickle", "CANARY"),
    "pandas.eval": call("pandas", "eval", "1"),
    "pandas.io.common.get_handle": call("pandas.io.common", "get_handle", "CANARY", "w"),
    "pandas.DataFrame.to_csv": call("pandas", "DataFrame.to_csv", "CANARY"),
    "numpy.ndarray.tofile": call("numpy", "ndarray.tofile", "CANARY"),
    "pyarrow.lib.OSFile": call("pyarrow.lib", "OSFile", "CANARY", "w"),
    "functools.partial": call("functools", "partial", "CANARY"),
    "operator.methodcaller": call("operator", "methodcaller", "CANARY"),
    "_io.FileIO": call("_io", "FileIO", "CANARY", "w"),
    "finetune_trainer.data.formats.pickle_guard.read_inert": call(
        "finetune_trainer.data.formats.pickle_guard", "read_inert"
    ),
}


@pytest.mark.parametrize("wrap", [bytes, in_a_cell], ids=["bare", "in a cell"])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_pickle_that_asks_for_something_else_is_refused_by_name(
    name: str, wrap: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FaultError) as raised:
        rows_of(wrap(ATTACKS[name]))
    assert raised.value.fault.kind is ProblemKind.FILE
    assert repr(name) in raised.value.fault.found
    assert "to_parquet" in raised.value.fault.remedy
    assert not list(tmp_path.iterdir())


def test_the_attacks_would_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(ATTACKS["builtins.eval"]).close()
    assert (tmp_path / "CANARY").exists()
    assert pickle.loads(in_a_cell(call("builtins", "len", [1, 2])))["text"].tolist() == ["a", 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_allowed_name_does_nothing_either(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on the list is not called: hostile arguments reach nobody."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    calls = [Calls(bytearray, 1 << 40), Calls(np.ndarray, (1 << 20, 1 << 20))]
    for content in (pickle.dumps(hostile, protocol=protocol) for hostile in calls):
        with pytest.raises(FaultError, match="a pickle of"):
            rows_of(content)
    assert set(sys.modules) == before


OTHERS = {
    "persistent id": (b"\x80\x02\x8c\x01xQ.", "BINPERSID"),
    "persistent id, protocol 0": (b"Pcanary\n.", "PERSID"),
    "extension registry": (b"\x80\x02\x82\x01.", "EXT1"),
    "buffer beside": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "call of protocol 0": (b"(S'touch CANARY'\nios\nsystem\n.", "INST"),
    "call of protocol 1": (b"\x80\x01(cos\nsystem\nX\x01\0\0\0xo.", "OBJ"),
    "memo bomb": (b"\x80\x02]r\xff\xff\xff\x7f.", "memo index 2147483647"),
    "bytes that are not there": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.", "damaged"),
    "text that is not there": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.", "damaged"),
    "array that is not there": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.", "damaged"),
    "frame that is not there": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.", "damaged"),
    "state of a list": (b"\x80\x02]}X\x01\0\0\0ax\0b.", "damaged"),
    "junk behind": (pickle.dumps([1]) + b"junk", "4 bytes after its end"),
    "a list": (pickle.dumps([1]), "a pickle of a list of 1"),
    "a series": (pickle.dumps(pd.Series(["a"])), "pandas.Series"),
    "no pickle": (b"prompt,completion\nq,a\n", "damaged pickle, or none"),
    "columns by level": (pickle.dumps(pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")]))), "MultiIn"),
    "column twice": (pickle.dumps(pd.DataFrame([["a", "b"]], columns=["text", "text"])), "'text' twice"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused(name: str) -> None:
    content, word = OTHERS[name]
    with pytest.raises(FaultError) as raised:
        rows_of(content)
    assert word in raised.value.fault.found


def test_a_list_that_unfolds_without_end_is_too_long() -> None:
    unfolding: list[object] = ["x"]
    for _ in range(60):
        unfolding = [unfolding, unfolding]
    content = pickle.dumps(pd.DataFrame({"text": [unfolding, "b"]}))
    first, second = rows_of(content, limits={"maxLineBytes": 100_000})
    assert isinstance(first, Fault)
    assert first.kind is ProblemKind.TOO_LONG
    assert second == {"text": "b"}


def test_rows_that_unfold_without_end_end_the_file() -> None:
    """Each of them is short enough for a row; two thousand of them would take hours."""
    unfolding: list[object] = ["x"]
    for _ in range(20):
        unfolding = [unfolding, unfolding]
    content = pickle.dumps(pd.DataFrame({"text": [unfolding] * 2000}))
    assert len(content) < 10_000
    with pytest.raises(FaultError, match="unfold to far more than the file"):
        rows_of(content)


def test_lists_that_rows_share_are_read() -> None:
    shared = [{"name": f"tool {number}"} for number in range(200)]
    rows = rows_of(pickle.dumps(pd.DataFrame({"messages": [shared] * 500})), fields={"messages": "messages"})
    assert [len(row["messages"]) for row in rows] == [200] * 500


NESTED = b")" + b"2\x86" * 60
"""An empty tuple, and sixty times the pair of it with itself."""


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04}" + NESTED + b"K\x01s.",
        b"\x80\x04}(" + NESTED + b"K\x01u.",
        b"\x80\x04(" + NESTED + b"K\x01d.",
        b"\x80\x04\x8f(" + NESTED + b"\x90.",
        b"\x80\x04(" + NESTED + b"\x91.",
        b"\x80\x04}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
        b"\x80\x04}" + b")\x94" + b"".join(b"h%c\x86\x94" % number for number in range(60)) + b"K\x01s.",
    ],
    ids=["SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "memo", "memoize"],
)
def test_keys_that_hash_without_end_are_not_hashed(content: bytes) -> None:
    with pytest.raises(FaultError, match="damaged pickle"):
        rows_of(content)


def test_a_claim_of_endless_columns_or_rows_is_refused() -> None:
    good = pickle.dumps(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), protocol=2)
    # The shape (2, 2) of the block.
    shape = b"K\x02K\x02\x86"
    assert good.count(shape) == 1
    huge = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    for claim in (huge + b"K\x02\x86", b"K\x02" + huge + b"\x86", huge + b"K\x00\x86"):
        with pytest.raises(FaultError) as raised:
            rows_of(good.replace(shape, claim), fields={"text": "a"})
        assert "form that is not known" in raised.value.fault.found


def test_a_claim_of_many_columns_without_a_row_is_refused() -> None:
    content = pickle.dumps(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), protocol=2)
    many = b"J" + (1 << 20).to_bytes(4, "little")
    for true, claim in (
        (b"K\x02K\x02\x86", many + b"K\x00\x86"),
        (b"K\x00K\x02K\x01\x87", b"K\x00" + many + b"K\x01\x87"),
    ):
        assert content.count(true) == 1
        content = content.replace(true, claim)
    with pytest.raises(FaultError) as raised:
        rows_of(content)
    assert "more than 100,000 columns" in raised.value.fault.found


def test_a_claim_of_more_rows_than_a_file_can_hold_is_refused() -> None:
    content = pickle.dumps(pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 2)}), protocol=2)
    shape = b"K\x01K\x02\x86"
    assert content.count(shape) == 1
    content = content.replace(shape, b"K\x01J" + (1 << 30).to_bytes(4, "little") + b"\x86")
    dataset = DatasetSpec.model_validate({"uri": "file:///t.pkl", "format": "pandas"})
    with pytest.raises(FaultError):
        next(iter(PickledFrameRecords(iter([content]), dataset.limits, expected_rows(dataset), lambda _: None)))


def test_a_pickle_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_frame, "MOST_BYTES", 1000)
    with pytest.raises(FaultError, match="a pickle of more than 1,000 bytes"):
        rows_of(pickle.dumps(pd.DataFrame({"text": ["a" * 2000]})))


def test_every_beginning_of_a_pickle_is_refused() -> None:
    content = pickle.dumps(frame_of_every_kind())
    for end in range(1, len(content), 7):
        with pytest.raises(FaultError):
            rows_of(content[:end])


@pytest.mark.parametrize(
    ("lacks", "has"),
    [(b"cpyarrow.lib\n_restore_array\n", b"cpyarrow.lib\npy_buffer\n"), (b"\nCategoricalDtype\n", b"\nStringDtype\n")],
)
def test_a_column_without_what_it_is_made_of_is_refused(lacks: bytes, has: bytes) -> None:
    content = pickle.dumps(frame_of_every_kind(), protocol=0)
    assert lacks in content
    with pytest.raises(FaultError, match=r"a DataFrame in a form that is not known .*without"):
        rows_of(content.replace(lacks, has), fields={"text": "category"})


def test_columns_may_be_named_by_anything() -> None:
    names = ["text", 7, pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-02"), None]
    [row] = rows_of(pickle.dumps(pd.DataFrame([["a", "b", "c", "d", "e"]], columns=pd.Index(names, dtype=object))))
    assert row["text"] == "a"
    assert list(row)[:2] == ["7", "column 3, named by _unpickle_timestamp"]
    assert len(row) == 5


def test_a_list_in_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(FaultError, match="nested too deeply"):
        rows_of(pickle.dumps(pd.DataFrame({"text": [endless]})))


def test_values_that_are_not_read_come_to_an_end() -> None:
    values = Opaque("numpy M8", 8)
    assert len(list(values)) == 8
    assert values[::3] is not values
    with pytest.raises(IndexError):
        values[8]


GOOD = [pickle.dumps(frame_of_every_kind(), protocol=protocol) for protocol in PROTOCOLS]


@given(
    good=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
    name=st.sampled_from(["prompt", "arrow", "category", "messages", "arrays", "time", "masked"]),
)
def test_a_damaged_pickle_is_read_or_refused_and_nothing_else(
    good: bytes, changes: list[tuple[int, int]], name: str
) -> None:
    content = bytearray(good)
    for place, byte in changes:
        content[place % len(content)] = byte
    with contextlib.suppress(FaultError):
        assert all(isinstance(row, dict | Fault) for row in rows_of(bytes(content), fields={"text": name}))


def test_an_odd_escape_in_a_text_is_no_warning() -> None:
    with pytest.raises(FaultError, match="a pickle of the text"):
        rows_of(b"\x80\x03S'\\q'\n.")


def test_the_file_is_read_as_a_stream() -> None:
    content = io.BytesIO(GOOD[5])
    dataset = DatasetSpec.model_validate({"uri": "file:///t.pkl", "format": "pandas"})
    records = PickledFrameRecords(
        iter(lambda: content.read(7), b""), dataset.limits, expected_rows(dataset), lambda _: None
    )
    assert [number for number, _, _ in records] == [1, 2, 3]
