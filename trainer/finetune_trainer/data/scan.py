"""One pass over the data: it reads bytes, yields valid rows, and finds every problem with its place.

Memory does not grow with the data. Preflight and the trainer make the same pass, so the trainer reads all data that
preflight has accepted.
"""

import posixpath
from collections.abc import Iterator, Sequence

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.contract.recipe.dataset import DatasetSchema, DatasetSpec
from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.formats.open_records import StoredBytes, open_records
from finetune_trainer.data.formats.records import Records, Row, TypedRecords
from finetune_trainer.data.problems import Fault, FaultError, Findings, ProblemKind
from finetune_trainer.data.schemas.column_wise import column_wise_fault
from finetune_trainer.data.schemas.detect import detect_schema, unknown_schema
from finetune_trainer.data.schemas.pair_agreement import PairAgreement
from finetune_trainer.data.schemas.preference import PreferenceSchema
from finetune_trainer.data.schemas.row_meaning import UnreadColumns, expected_rows
from finetune_trainer.data.schemas.row_schemas import RowSchema
from finetune_trainer.storage.base import ByteCount, OpenStore

ScannedRow = tuple[RowSchema, str, int, Row]
"""Schema, file name, number of the line or row in the file (see `DatasetScan.unit`), and row."""


_KEYS_AT_ONCE = 1024
"""Number of row keys that are counted together, which is faster than one by one."""


class _EndOfPassError(FaultError):
    """A fault after which no more data are read, from this object or the next."""


class DatasetScan:
    """Reads objects once, in order. Iteration yields every row without faults.

    Args:
        dataset: how rows are read, and the limits.
        objects: the objects to read.
        open_store: opens the store of an object.
        on_bytes: called with the number of stored bytes as they are read.
        duplicates: the counter of duplicates; a new one by default.

    Attributes:
        findings: the problems; complete when the iteration has ended.
        rows: number of rows read, with or without faults.
        blank_lines: number of lines without content.
        bytes: number of bytes read, after decompression.
        schema: the rows' schema; None until it is detected.
        unread: columns, and keys of turns, that are not read, as far as the rows were read.
        unit: what the line numbers of the current object count.
        duplicates: counts valid rows that repeat an earlier row in all columns that are trained.
    """

    def __init__(
        self,
        dataset: DatasetSpec,
        objects: Sequence[SourceObject],
        open_store: OpenStore,
        on_bytes: ByteCount = lambda _: None,
        duplicates: DuplicateCounter | None = None,
    ) -> None:
        self._dataset = dataset
        self._expected = expected_rows(dataset)
        self._objects = objects
        self._names = display_names(objects)
        self._open_store = open_store
        self._on_bytes = on_bytes
        self.findings = Findings()
        self.rows = self.blank_lines = self.bytes = 0
        self.schema: DatasetSchema | None = None
        self._columns: UnreadColumns | None = None
        self._known: RowSchema | None = None
        self.unit = Unit.LINE
        self.duplicates = duplicates or DuplicateCounter()

    def __iter__(self) -> Iterator[ScannedRow]:
        """The valid rows.

        Raises:
            TrainerError: NOT_SUPPORTED, a package that reads the format is not installed; or the storage's reason.
        """
        detected = detect_schema(self._dataset, self._objects, self._open_store)
        self._known = detected.row_schema
        self._columns = UnreadColumns(self._dataset, self._known) if self._known is not None else None
        self._check_object_count()
        try:
            for source, name in zip(self._objects, self._names, strict=True):
                yield from self._object(source, name, detected.row_schema)
        except _EndOfPassError:
            return
        if self.agreement is not None and self.agreement.seems_swapped:
            self.findings.add(self.agreement.fault(), self._names[0], 1)
        if not self.rows and not self.findings.count:
            content = f"{self.blank_lines:,} blank lines" if self.blank_lines else f"{self.bytes:,} bytes"
            fault = Fault(kind=ProblemKind.NO_ROWS, found=content, expected="rows", remedy="the dataset holds no rows")
            self.findings.add(fault, self._names[0] if self._names else "dataset", 1, 0)

    @property
    def agreement(self) -> PairAgreement | None:
        """What pairs say of their own order, as far as the rows were read; None of rows that are no pairs."""
        return self._known.agreement if isinstance(self._known, PreferenceSchema) else None

    @property
    def unread(self) -> Sequence[str]:
        """See the class."""
        columns = self._columns.names if self._columns is not None else ()
        return [*columns, *(self._known.unread if self._known is not None else ())]

    def _object(self, source: SourceObject, name: str, known: RowSchema | None) -> Iterator[ScannedRow]:
        expected = self._dataset.sha256.lower() if self._dataset.sha256 is not None else None
        with self._open_store(source.location).open(source) as stream:
            stored = StoredBytes(stream, self._on_bytes, hashed=expected is not None)
            records: Records | None = None
            try:
                records = open_records(stored, source, self._dataset, self._expected, self._unpacked)
                yield from self._rows(records, name, known, stored.mark_bytes)
            except FaultError as error:
                number, offset = error.line, error.offset
                if number is None:
                    number, offset = (records.number + 1, records.offset) if records is not None else (1, 0)
                unit = records.unit if records is not None else Unit.LINE
                self.findings.add(error.fault, name, number, _moved_by(stored.mark_bytes, offset), unit)
                if isinstance(error, _EndOfPassError):
                    raise
            if (digest := stored.digest()) != expected:
                fault = Fault(
                    kind=ProblemKind.CHECKSUM,
                    found=f"SHA-256 {digest}",
                    expected=f"{expected} (dataset.sha256)",
                    remedy="the object is another one than the recipe was written for",
                )
                self.findings.add(fault, name, 1, 0)

    def _rows(self, records: Records, name: str, known: RowSchema | None, mark_bytes: int) -> Iterator[ScannedRow]:
        """The valid rows of an object.

        Args:
            records: the object's records.
            name: the object's name, for messages.
            known: the detected schema; None when the rows have no known schema.
            mark_bytes: bytes of the byte order mark, which the offsets of `records` do not count.

        Raises:
            FaultError: the rest of the object cannot be read, a limit is exceeded, or the rows have no known schema.
        """
        if known is not None:
            self.schema = known.schema
        # This loop decides the speed of the pass: a valid row costs as few calls as possible.
        self.unit = unit = records.unit
        add, max_rows = self.findings.add, self._dataset.limits.max_rows
        if known is not None and isinstance(records, TypedRecords):
            columns = records.columns()
            faults = known.misdeclared(columns) if columns else ()
            for fault in faults:
                add(fault, name, 1, None if records.offset is None else 0, unit)
            if faults:
                return
        seen, keys = self.duplicates.add, list[int]()
        changes_meaning = self._columns.fault if self._columns is not None else lambda _: None
        try:
            for number, offset, row in records:
                if not isinstance(row, dict):
                    if row is None:
                        self.blank_lines += 1
                    else:
                        add(row, name, number, _moved_by(mark_bytes, offset), unit)
                    continue
                self.rows += 1
                if self.rows > max_rows:
                    raise _EndOfPassError(_over_limit("rows", max_rows, "maxRows"), number, offset)
                if known is None:
                    raise _EndOfPassError(unknown_schema(row, self._dataset), number, offset)
                if (changed := changes_meaning(row)) is not None:
                    add(changed, name, number, _moved_by(mark_bytes, offset), unit)
                    continue
                key = known.key(row)
                if key is None:
                    for fault in column_wise_fault(row, known.faults(row)):
                        add(fault, name, number, _moved_by(mark_bytes, offset), unit)
                    continue
                keys.append(key)
                if len(keys) == _KEYS_AT_ONCE:
                    seen(keys)
                    keys.clear()
                yield known, name, number, row
        finally:
            seen(keys)

    def _unpacked(self, count: int) -> None:
        """Counts decompressed bytes.

        Raises:
            FaultError: the data are larger than `dataset.limits.maxBytes`.
        """
        self.bytes += count
        if self.bytes > (longest := self._dataset.limits.max_bytes):
            raise _EndOfPassError(_over_limit("bytes", longest, "maxBytes"))

    def _check_object_count(self) -> None:
        if self._dataset.sha256 is not None and len(self._objects) > 1:
            fault = Fault(
                kind=ProblemKind.CHECKSUM,
                found=f"{len(self._objects)} objects",
                expected="one object, since dataset.sha256 names one content",
                remedy="remove dataset.sha256, or name the one object",
            )
            self.findings.add(fault, self._names[0], 1, 0)


def display_names(objects: Sequence[SourceObject]) -> list[str]:
    """Names of the objects for messages.

    One object has its file name. Several objects have the part of their paths in which they differ, or their whole
    URIs when they are in several buckets.
    """
    if len(objects) == 1:
        return [posixpath.basename(objects[0].uri)]
    if len({item.location.authority for item in objects}) > 1:
        return [item.uri for item in objects]
    common = posixpath.commonprefix([item.uri.split("/")[:-1] for item in objects])
    return ["/".join(item.uri.split("/")[len(common) :]) for item in objects]


def _moved_by(mark_bytes: int, offset: int | None) -> int | None:
    return None if offset is None else offset + mark_bytes


def _over_limit(what: str, limit: int, field: str) -> Fault:
    return Fault(
        kind=ProblemKind.LIMIT,
        found=f"more than {limit:,} {what}",
        expected=f"at most {limit:,} {what}",
        remedy=f"raise dataset.limits.{field} if that many are meant",
    )
