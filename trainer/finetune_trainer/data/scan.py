"""One pass over the data: bytes in, sound rows out, every problem with its place. Memory does not grow with the data.

Preflight and the trainer make the same pass: what preflight has let through, the trainer reads.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.gunzip import MAGIC, gunzip
from finetune_trainer.data.json_line import is_cut_short, parse_row
from finetune_trainer.data.lines import LineSplitter
from finetune_trainer.data.problems import Fault, FaultError, Findings, ProblemKind, keys_shown
from finetune_trainer.data.shapes import Row, Shape, shapes
from finetune_trainer.data.sniff import HEAD_BYTES, UTF8_BOM, require_jsonl, sniff
from finetune_trainer.storage.base import ByteCount, OpenStore

PIECE_BYTES = 1 << 20
_LOOKED_AT_ROWS = 100
"""Rows from which the shape is found."""
_LOOKED_AT_BYTES = 8 << 20
Placed = tuple[str, int, int, Row]
"""File, line, byte offset, row."""


class _LimitError(FaultError):
    """A limit over all files is exceeded: nothing more is read."""


class DatasetScan:
    """Reads objects once, in order. Iterating gives (shape, file, line, row) of every row without faults.

    Args:
        dataset: how rows are read, and the limits.
        objects: what to read.
        open_store: where objects are opened.
        moved: called with stored bytes as they are read.

    Attributes:
        findings: the problems; complete when the iteration has ended.
        rows: JSON objects seen, sound or not.
        blank_lines: lines without content.
        bytes: bytes after decompression.
        shape: the rows' shape, once known.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        objects: Sequence[SourceObject],
        open_store: OpenStore,
        moved: ByteCount = lambda _: None,
    ) -> None:
        self._dataset = dataset
        self._objects = objects
        self._open_store = open_store
        self._moved = moved
        self.findings = Findings()
        self.rows = self.blank_lines = self.bytes = 0
        self.shape: Shape | None = None

    @property
    def schema(self) -> DatasetSchema | None:
        """The rows' schema, once known."""
        return self.shape.schema if self.shape else None

    def __iter__(self) -> Iterator[tuple[Shape, str, int, Row]]:
        rows = self._rows()
        first = self._first(rows)
        shape = self.shape = self._choose(first) if first else None
        if shape is not None:
            for file, line, offset, row in chain(first, rows):
                faults = shape.faults(row)
                if faults:
                    for fault in faults:
                        self.findings.add(fault, file, line, offset)
                else:
                    yield shape, file, line, row
        if not self.rows and not self.findings.count:
            names = display_names(self._objects)
            found = f"{self.blank_lines:,} blank lines" if self.blank_lines else "0 bytes"
            self.findings.add(
                Fault(kind=ProblemKind.NO_ROWS, found=found, expected="rows", remedy="the dataset holds no rows"),
                names[0] if names else "dataset",
                1,
            )

    def _first(self, rows: Iterator[Placed]) -> list[Placed]:
        """The rows to find the shape from: a hundred, or what fits into a few MiB."""
        first = []
        for placed in rows:
            first.append(placed)
            if len(first) >= _LOOKED_AT_ROWS or self.bytes > _LOOKED_AT_BYTES:
                break
        return first

    def _choose(self, first: Sequence[Placed]) -> Shape | None:
        """The shape that most of the rows have; of equals the richer one."""
        candidates = shapes(self._dataset.schema_, self._dataset.fields)
        fitting = [sum(shape.fits(row) for *_, row in first) for shape in candidates]
        if any(fitting):
            return candidates[fitting.index(max(fitting))]
        if self._dataset.schema_ is not DatasetSchema.AUTO:
            return candidates[0]  # named by the user: every row is told what it lacks
        file, line, offset, row = first[0]
        known = "; ".join(dict.fromkeys(shape.columns for shape in candidates))
        self.findings.add(
            Fault(
                kind=ProblemKind.SCHEMA,
                found=f"the keys {keys_shown(row)}" if row else "an empty object",
                expected=f"one of: {known}",
                remedy="rename the columns, or map them with dataset.fields",
            ),
            file,
            line,
            offset,
        )
        return None

    def _rows(self) -> Iterator[Placed]:
        if self._dataset.sha256 is not None and len(self._objects) != 1:
            fault = Fault(
                kind=ProblemKind.CHECKSUM,
                found=f"{len(self._objects)} objects",
                expected="one object, since dataset.sha256 names one content",
            )
            self.findings.add(fault, display_names(self._objects)[0], 1)
        try:
            for source, name in zip(self._objects, display_names(self._objects), strict=True):
                with self._open_store(parse_uri(source.uri)).open(source) as stream:
                    yield from self._file(source, name, stream)
        except _LimitError:
            return

    def _file(self, source: SourceObject, name: str, stream: BinaryIO) -> Iterator[Placed]:
        stored = _StoredBytes(stream, self._moved, hashed=self._dataset.sha256 is not None)
        splitter = LineSplitter(self._counted(stored, source), self._dataset.limits.max_line_bytes)
        try:
            yield from self._lines(splitter, name)
        except FaultError as error:
            self.findings.add(error.fault, name, max(1, splitter.number))
            if isinstance(error, _LimitError):
                raise
        if self._dataset.sha256 not in (None, found := stored.digest()):
            fault = Fault(
                kind=ProblemKind.CHECKSUM,
                found=f"SHA-256 {found}",
                expected=f"{self._dataset.sha256} (dataset.sha256)",
                remedy="the object is another one than the recipe was written for",
            )
            self.findings.add(fault, name, 1)

    def _lines(self, splitter: LineSplitter, name: str) -> Iterator[Placed]:
        """The rows of a file.

        Raises:
            FaultError: the rest of the file cannot be read.
        """
        findings, limits = self.findings, self._dataset.limits
        begun = False
        for number, offset, line in splitter:
            if line is None:
                fault = Fault(
                    kind=ProblemKind.TOO_LONG,
                    found=f"a line of more than {limits.max_line_bytes:,} bytes",
                    expected="a shorter one",
                    remedy="split the row, or raise dataset.limits.maxLineBytes",
                )
                findings.add(fault, name, number, offset)
                continue
            try:
                row = parse_row(line)
            except FaultError as error:
                fault = error.fault
                if not begun and splitter.terminated and is_cut_short(line):
                    fault = _pretty_printed()
                    findings.add(fault, name, number, offset)
                    return
                if not splitter.terminated and is_cut_short(line):
                    fault = _cut_short(line)
                findings.add(fault, name, number, offset)
                begun = True
                continue
            if row is None:
                self.blank_lines += 1
                continue
            begun = True
            self.rows += 1
            if self.rows > limits.max_rows:
                raise _LimitError(_over_limit("rows", limits.max_rows, "maxRows"))
            yield name, number, offset, row

    def _counted(self, stored: Iterator[bytes], source: SourceObject) -> Iterator[bytes]:
        """Decompressed pieces of a file that looks like jsonl, without a byte order mark.

        Raises:
            FaultError: it is something else, or cannot be decompressed.
            TrainerError: it is of a format that is not read.
        """
        first = next(stored, b"")
        pieces = chain((first,), stored)
        if first.startswith(MAGIC):
            pieces = chain(gunzip(pieces, self._dataset.limits.max_compression_ratio))
        first = next(pieces, b"")
        head = first[:HEAD_BYTES]
        require_jsonl(self._dataset.format, posixpath.basename(source.uri), head)
        if fault := sniff(head):
            raise FaultError(fault)
        for piece in chain((first.removeprefix(UTF8_BOM),), pieces):
            self.bytes += len(piece)
            if self.bytes > self._dataset.limits.max_bytes:
                raise _LimitError(_over_limit("bytes", self._dataset.limits.max_bytes, "maxBytes"))
            yield piece


class _StoredBytes:
    """The stored bytes in pieces, counted and hashed on the way."""

    def __init__(self, stream: BinaryIO, moved: ByteCount, *, hashed: bool) -> None:
        self._stream = stream
        self._moved = moved
        self._hash = hashlib.sha256() if hashed else None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._stream.read(PIECE_BYTES)
        if not piece:
            raise StopIteration
        self._moved(len(piece))
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def digest(self) -> str | None:
        """The SHA-256 of the whole object, whether or not all of it was asked for; None when not hashed."""
        if self._hash is None:
            return None
        for _ in self:
            pass
        return self._hash.hexdigest()


def display_names(objects: Sequence[SourceObject]) -> list[str]:
    """Names for messages: the file's own, or with the folders in which several objects differ."""
    if len(objects) == 1:
        return [posixpath.basename(objects[0].uri)]
    if len({parse_uri(item.uri).authority for item in objects}) > 1:
        return [item.uri for item in objects]
    common = posixpath.commonpath([posixpath.dirname(item.uri) for item in objects]) if objects else ""
    return [item.uri[len(common) :].lstrip("/") for item in objects]


def _pretty_printed() -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found="an object that goes on in the next line",
        expected="jsonl: one JSON object a line",
        remedy="the JSON is pretty-printed: jq -c . FILE",
    )


def _cut_short(line: bytes) -> Fault:
    return Fault(
        kind=ProblemKind.JSON,
        found=f"the end of the file after {line[-30:].decode(errors='replace')!r}",
        expected="a whole object",
        remedy="the file is cut short: upload it again",
    )


def _over_limit(what: str, limit: int, field: str) -> Fault:
    return Fault(
        kind=ProblemKind.LIMIT,
        found=f"more than {limit:,} {what}",
        expected=f"at most {limit:,} {what}",
        remedy=f"raise dataset.limits.{field} if that many are meant",
    )
