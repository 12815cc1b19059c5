"""What a file is, from its name and its first bytes, when it is not what it should be.

A CSV or an HTML error page that is called train.jsonl would give one problem a line; one problem that says what the
file is serves better.
"""

import re

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import DatasetFormat
from finetune_trainer.data.problems import Fault, ProblemKind

UTF8_BOM = b"\xef\xbb\xbf"
HEAD_BYTES = 4096
_BINARY = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\x00": "xz data",
    b"\x1f\x8b": "gzip data inside gzip data",
    b"ARROW1": "an Arrow file",
    b"\x80\x04\x95": "a Python pickle",
    b"\x80\x05\x95": "a Python pickle",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
}
_OTHER_FORMATS = {
    ".csv": DatasetFormat.CSV,
    ".tsv": DatasetFormat.TSV,
    ".txt": DatasetFormat.TEXT,
    ".parquet": DatasetFormat.PARQUET,
    ".pkl": DatasetFormat.PANDAS,
    ".pickle": DatasetFormat.PANDAS,
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_LFS = b"version https://git-lfs"


def require_jsonl(format_: DatasetFormat, name: str, head: bytes) -> None:
    """Accepts what is read as jsonl: named so, or `auto` and not evidently something else.

    Args:
        format_: `dataset.format`.
        name: the object's name; `.gz` and `.zst` at its end do not count.
        head: its first bytes, decompressed.

    Raises:
        TrainerError: NOT_SUPPORTED for another format.
    """
    if head.startswith(_ZSTD):
        raise TrainerError(
            FailureReason.NOT_SUPPORTED, f"{name}: zstd data is not unpacked by this version; compress it with gzip"
        )
    found = format_
    if format_ is DatasetFormat.AUTO:
        suffix = re.sub(r"\.(gz|zst)$", "", name.lower())
        suffix = suffix[suffix.rfind(".") :] if "." in suffix else ""
        if head.removeprefix(UTF8_BOM).lstrip().startswith(b"{"):
            return
        found = _OTHER_FORMATS.get(suffix, DatasetFormat.JSONL)
    if found is not DatasetFormat.JSONL:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"{name}: dataset.format {found} is not read by this version; convert the rows to jsonl, one JSON object "
            "a line",
        )


def sniff(head: bytes) -> Fault | None:
    """What is wrong with the file as a whole, or None when its lines should be looked at."""
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            return _fault(what, "convert it to jsonl; plain or gzip-compressed (.gz) jsonl is read")
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) or b"\0" in head[:4]:
        return Fault(
            kind=ProblemKind.ENCODING,
            found="UTF-16 or UTF-32",
            expected="UTF-8",
            remedy="convert it: iconv -f UTF-16 -t UTF-8",
        )
    text = head.removeprefix(UTF8_BOM).lstrip()
    if text.startswith(b"<"):
        what = f"a web page or XML document ({text[:40]!r})"
        return _fault(what, "download the file again: a server answered with this page instead of the data")
    if text.startswith(b"["):
        return _fault("a JSON array", "write one object a line: jq -c '.[]' FILE")
    if text.startswith(_LFS):
        return _fault("a Git LFS pointer", "fetch the file itself: git lfs pull")
    return None


def _fault(found: str, remedy: str) -> Fault:
    return Fault(kind=ProblemKind.FILE, found=found, expected="jsonl: one JSON object a line", remedy=remedy)
