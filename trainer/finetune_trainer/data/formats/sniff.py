"""Finds the format of a file from its name and its first bytes, and recognises files of other kinds.

A web page or a zip archive with the name train.jsonl would give one problem a line. One problem that says what the file
is helps more.
"""

import re
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetFormat, DatasetSpec
from finetune_trainer.data.formats.file_name import format_of_name
from finetune_trainer.data.formats.json_line import is_cut_short, parse_row
from finetune_trainer.data.formats.records import ExpectedRows, Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind

UTF8_BOM = b"\xef\xbb\xbf"
PARQUET_MAGIC = (b"PAR1", b"PARE")
_HEAD_BYTES = 4096
_WANTED: Final = {
    DatasetFormat.JSONL: "jsonl: one JSON object a line",
    DatasetFormat.JSON: "a JSON array of rows",
    DatasetFormat.CSV: "CSV",
    DatasetFormat.TSV: "TSV",
    DatasetFormat.TEXT: "text",
    DatasetFormat.PARQUET: "Parquet",
    DatasetFormat.PANDAS: "a pickled DataFrame",
}
_BINARY: Final = (
    (PARQUET_MAGIC[0], "a Parquet file", "set dataset.format: parquet, or auto"),
    (PARQUET_MAGIC[1], "an encrypted Parquet file", "write it without encryption"),
    (
        b"PK\x03\x04",
        "a zip archive or an Office file",
        "unpack it (gzip and zstd are unpacked here), or export it as CSV",
    ),
    (b"BZh", "bzip2 data", "compress it with gzip or zstd instead"),
    (b"\xfd7zXZ\x00", "xz data", "compress it with gzip or zstd instead"),
    (b"\x1f\x8b", "gzip data inside compressed data", "compress it once"),
    (b"\x28\xb5\x2f\xfd", "zstd data inside compressed data", "compress it once"),
    (b"ARROW1", "an Arrow file", "write it as Parquet: pyarrow.parquet.write_table"),
    (b"\xff\xff\xff\xff", "an Arrow stream, as Dataset.save_to_disk writes it", "write Parquet: Dataset.to_parquet"),
    (b"SQLite format 3", "an SQLite database", "export the rows as jsonl"),
    (b"%PDF", "a PDF", "extract its text"),
    (b"Obj\x01", "an Avro file", "write it as Parquet or jsonl"),
    (b"\xd0\xcf\x11\xe0", "an Excel or Word file", "export it as CSV or text"),
    (b"\x89HDF", "an HDF5 file", "write it as Parquet: DataFrame.to_parquet"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05](\x95|c|\]|\}|\x8c|\()")
_PAGE = re.compile(rb"<(!doctype|html|\?xml)", re.IGNORECASE)
_TAR_AT = 257
_LFS = b"version https://git-lfs"
_LIST_OF_OBJECTS = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*\{')


def format_of(dataset: DatasetSpec, name: str, first: bytes, expected: ExpectedRows) -> DatasetFormat:
    """The format of a file.

    It is the format in the recipe; else the format of the content, where the content is unambiguous; else the format of
    the file name's suffix; else jsonl.

    Args:
        dataset: the recipe's section.
        name: the object's name; `.gz` and `.zst` at its end are ignored.
        first: its first bytes, decompressed. With more bytes JSON and jsonl are told apart more reliably.
        expected: what is known of rows.
    """
    if dataset.format is not DatasetFormat.AUTO:
        return dataset.format
    by_name = format_of_name(name)
    if first.startswith(PARQUET_MAGIC):
        return DatasetFormat.PARQUET
    text = first.removeprefix(UTF8_BOM).lstrip()
    if text.startswith(b"{"):
        named = by_name is DatasetFormat.JSONL
        return DatasetFormat.JSON if not named and _is_document(text, expected) else DatasetFormat.JSONL
    if text.startswith(b"[") and text[1:_HEAD_BYTES].lstrip()[:1] in (b"{", b"]"):
        return DatasetFormat.JSON
    return by_name or DatasetFormat.JSONL


def sniff(head: bytes, format_: DatasetFormat) -> Fault | None:
    """The fault of a file of another kind; None when its rows should be read.

    Args:
        head: the file's first bytes, decompressed.
        format_: the format in which the file is to be read.
    """
    head = head[:_HEAD_BYTES]
    wanted = _WANTED[format_]
    for magic, what, remedy in _BINARY:
        if head.startswith(magic) and not (format_ is DatasetFormat.PARQUET and magic == PARQUET_MAGIC[0]):
            return _fault(what, wanted, remedy)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return _fault("a tar archive", wanted, "unpack it, and name the folder as a prefix that ends in /")
    if head.startswith(_LFS):
        return _fault("a Git LFS pointer", wanted, "fetch the file itself: git lfs pull")
    text = head.removeprefix(UTF8_BOM).lstrip()
    json = format_ in (DatasetFormat.JSONL, DatasetFormat.JSON)
    # A valid text may begin with a tag: <s>[INST] …
    if _PAGE.match(text) or (json and text.startswith(b"<")):
        what = f"a web page or XML document ({text[:40]!r})"
        return _fault(what, wanted, "download the file again: a server answered with this page instead of the data")
    if format_ is DatasetFormat.PANDAS or format_ is DatasetFormat.PARQUET:
        return None
    if _PICKLE.match(head):
        remedy = "set dataset.format: pandas if it is a pickled DataFrame; better, write Parquet: DataFrame.to_parquet"
        return _fault("a Python pickle", wanted, remedy)
    if head and not head.strip(b"\0"):
        return _fault("NUL bytes and nothing else", wanted, "upload the file again: it was never written to the disk")
    if encoding := _wide_encoding(head):
        remedy = f"convert it: iconv -f {encoding} -t UTF-8"
        return Fault(kind=ProblemKind.ENCODING, found=encoding, expected="UTF-8", remedy=remedy)
    if format_ is DatasetFormat.JSONL and text.startswith(b"["):
        return _fault("a JSON array", wanted, "set dataset.format: json, or write one object a line: jq -c '.[]' FILE")
    return None


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, recognised by a byte order mark or by NUL bytes among the first four; else None."""
    begin = head[:4]
    if begin in (b"\xff\xfe\0\0", b"\0\0\xfe\xff") or begin.count(b"\0") == 3:
        return "UTF-32"
    return "UTF-16" if begin.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in begin else None


def _is_document(text: bytes, expected: ExpectedRows) -> bool:
    """Whether content that begins with an object is one JSON document with a list of rows, and not jsonl."""
    line, newline, rest = text.partition(b"\n")
    try:
        row = parse_row(line)
    except FaultError:
        if newline:
            return is_cut_short(line)  # the object goes on in the next line
        return _LIST_OF_OBJECTS.match(line) is not None and not expected.is_row(_first_key(line))
    if row is None or rest.strip() or expected.is_row(row):
        return False
    return any(isinstance(value, list) and value and isinstance(value[0], dict) for value in row.values())


def _first_key(line: bytes) -> Row:
    """The start of a long object as a row: its first key with an empty list."""
    return {line.split(b'"', 2)[1].decode(errors="replace"): []}


def _fault(found: str, expected: str, remedy: str) -> Fault:
    return Fault(kind=ProblemKind.FILE, found=found, expected=expected, remedy=remedy)
