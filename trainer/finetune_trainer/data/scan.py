"""One pass over the data: bytes in, sound rows out, every problem with its place. Memory does not grow with the data.

Preflight and the trainer make the same pass: what preflight has let through, the trainer reads.
"""

import posixpath
from collections.abc import Iterator, Sequence

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.detect import find_shape, unknown_shape
from finetune_trainer.data.json_line import is_cut_short, parse_row
from finetune_trainer.data.lines import LineSplitter
from finetune_trainer.data.opening import StoredBytes, jsonl_pieces
from finetune_trainer.data.problems import Fault, FaultError, Findings, ProblemKind
from finetune_trainer.data.shapes import Row, Shape
from finetune_trainer.storage.base import ByteCount, OpenStore

ScannedRow = tuple[Shape, str, int, Row]
"""Shape, file, line, row."""


class _EndOfPassError(FaultError):
    """A fault after which nothing more is read, of this object or another."""


class DatasetScan:
    """Reads objects once, in order. Iterating gives every row without faults.

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
        schema: the rows' schema, once known.
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
        self._names = display_names(objects)
        self._open_store = open_store
        self._moved = moved
        self.findings = Findings()
        self.rows = self.blank_lines = self.bytes = 0
        self.schema: DatasetSchema | None = None

    def __iter__(self) -> Iterator[ScannedRow]:
        """The sound rows.

        Raises:
            TrainerError: NOT_SUPPORTED, a format that is not read; or the storage's reason.
        """
        shape = find_shape(self._dataset, self._objects, self._open_store)
        self._check_object_count()
        try:
            for source, name in zip(self._objects, self._names, strict=True):
                yield from self._object(source, name, shape)
        except _EndOfPassError:
            return
        if not self.rows and not self.findings.count:
            found = f"{self.blank_lines:,} blank lines" if self.blank_lines else "0 bytes"
            fault = Fault(kind=ProblemKind.NO_ROWS, found=found, expected="rows", remedy="the dataset holds no rows")
            self.findings.add(fault, self._names[0] if self._names else "dataset", 1)

    def _object(self, source: SourceObject, name: str, shape: Shape | Row | None) -> Iterator[ScannedRow]:
        expected = self._dataset.sha256
        with self._open_store(parse_uri(source.uri)).open(source) as stream:
            stored = StoredBytes(stream, self._moved, hashed=expected is not None)
            splitter = LineSplitter(
                self._within_limit(jsonl_pieces(stored, source, self._dataset)), self._dataset.limits.max_line_bytes
            )
            try:
                yield from self._lines(splitter, name, shape)
            except FaultError as error:
                self.findings.add(error.fault, name, error.line or splitter.number + 1)
                if isinstance(error, _EndOfPassError):
                    raise
            if (found := stored.digest()) != expected:
                fault = Fault(
                    kind=ProblemKind.CHECKSUM,
                    found=f"SHA-256 {found}",
                    expected=f"{expected} (dataset.sha256)",
                    remedy="the object is another one than the recipe was written for",
                )
                self.findings.add(fault, name, 1)

    def _lines(self, splitter: LineSplitter, name: str, shape: Shape | Row | None) -> Iterator[ScannedRow]:
        """The rows of an object.

        Raises:
            FaultError: the rest of the object cannot be read.
        """
        if shape is None or isinstance(shape, dict):
            yield from self._lines_without_shape(splitter, name)
            return
        self.schema = shape.schema
        # The loop that decides the speed: no call more than needed for a sound row.
        add, faults_of, max_rows = self.findings.add, shape.faults, self._dataset.limits.max_rows
        for number, offset, line in splitter:
            try:
                row = parse_row(line) if line is not None else None
            except FaultError as error:
                add(self._line_fault(error.fault, line or b"", splitter), name, number, offset)
                continue
            if row is None:
                self._no_row(line, name, number, offset)
                continue
            self.rows += 1
            if self.rows > max_rows:
                raise _EndOfPassError(_over_limit("rows", max_rows, "maxRows"), number)
            if faults := faults_of(row):
                for fault in faults:
                    add(fault, name, number, offset)
            else:
                yield shape, name, number, row

    def _lines_without_shape(self, splitter: LineSplitter, name: str) -> Iterator[ScannedRow]:
        """Reports what is wrong until the first row, whose columns are none that are known."""
        for number, offset, line in splitter:
            try:
                row = parse_row(line) if line is not None else None
            except FaultError as error:
                self.findings.add(self._line_fault(error.fault, line or b"", splitter), name, number, offset)
                continue
            if row is None:
                self._no_row(line, name, number, offset)
                continue
            self.rows += 1
            raise _EndOfPassError(unknown_shape(row, self._dataset.fields), number)
        yield from ()

    def _line_fault(self, fault: Fault, line: bytes, splitter: LineSplitter) -> Fault:
        """The fault of a line that is no JSON, in the light of where it stands.

        Raises:
            FaultError: the whole object is pretty-printed: every line would be a problem.
        """
        if fault.kind is ProblemKind.JSON and is_cut_short(line):
            if not splitter.terminated:
                return _cut_short(line)
            if not self.rows and not self.findings.count:
                raise FaultError(_pretty_printed(), splitter.number)
        return fault

    def _no_row(self, line: bytes | None, name: str, number: int, offset: int) -> None:
        if line is not None:
            self.blank_lines += 1
            return
        fault = Fault(
            kind=ProblemKind.TOO_LONG,
            found=f"a line of more than {self._dataset.limits.max_line_bytes:,} bytes",
            expected="a shorter one",
            remedy="split the row, or raise dataset.limits.maxLineBytes",
        )
        self.findings.add(fault, name, number, offset)

    def _within_limit(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        longest = self._dataset.limits.max_bytes
        for piece in pieces:
            self.bytes += len(piece)
            if self.bytes > longest:
                raise _EndOfPassError(_over_limit("bytes", longest, "maxBytes"))
            yield piece

    def _check_object_count(self) -> None:
        if self._dataset.sha256 is not None and len(self._objects) > 1:
            fault = Fault(
                kind=ProblemKind.CHECKSUM,
                found=f"{len(self._objects)} objects",
                expected="one object, since dataset.sha256 names one content",
            )
            self.findings.add(fault, self._names[0], 1)


def display_names(objects: Sequence[SourceObject]) -> list[str]:
    """Names for messages: the file's own, or with the folders in which several objects differ."""
    if len(objects) == 1:
        return [posixpath.basename(objects[0].uri)]
    if len({parse_uri(item.uri).authority for item in objects}) > 1:
        return [item.uri for item in objects]
    common = posixpath.commonprefix([item.uri.split("/")[:-1] for item in objects])
    return ["/".join(item.uri.split("/")[len(common) :]) for item in objects]


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
