"""Problems of the data.

The first twenty problems are kept with their places, so that a broken file gives a message of readable length. The
others are only counted, by kind.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import DataProblem, Unit

KEPT = 20
"""Number of problems that are kept with their place."""
_IN_MESSAGE = 5


class ProblemKind(StrEnum):
    """A kind of problem. Messages show the number of each kind, followed by its text."""

    FILE = "unreadable file"
    ENCODING = "not UTF-8"
    JSON = "not JSON"
    NOT_OBJECT = "not a JSON object"
    CSV = "not CSV"
    DUPLICATE_KEY = "repeated key"
    TOO_LONG = "line too long"
    LIMIT = "over a limit"
    SCHEMA = "wrong columns"
    TYPE = "wrong type"
    EMPTY = "empty text"
    CHARACTER = "forbidden character"
    ROLE = "wrong role"
    NO_ANSWER = "no assistant turn"
    PAIR = "wrong pair"
    TEMPLATE = "chat template"
    NO_ROWS = "no rows"
    CHECKSUM = "wrong checksum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a row or a file, without its file name and line.

    Attributes:
        kind: the kind, by which problems are counted.
        found: the value in the data, shortened (`shown`).
        expected: what the value should be.
        path: key path inside the row.
        remedy: what the user can do.
    """

    kind: ProblemKind
    found: str
    expected: str
    path: str = ""
    remedy: str


class FaultError(Exception):
    """A fault as an exception. The caller that knows the file makes a problem of it.

    Attributes:
        fault: the fault.
        line: number of the faulty line; None for the line at which reading has stopped.
        offset: the byte at which that line begins; None when it is not known.
    """

    def __init__(self, fault: Fault, line: int | None = None, offset: int | None = None) -> None:
        super().__init__(fault.found)
        self.fault = fault
        self.line = line
        self.offset = offset


class Findings:
    """The problems of one pass over the data.

    Attributes:
        problems: the first `KEPT` problems.
        kinds: number of problems of each kind.
    """

    def __init__(self) -> None:
        self.problems: list[DataProblem] = []
        self.kinds: Counter[ProblemKind] = Counter()

    @property
    def count(self) -> int:
        """Number of all problems."""
        return self.kinds.total()

    def add(self, fault: Fault, file: str, line: int, byte_offset: int | None = None, unit: Unit = Unit.LINE) -> None:
        """Adds a fault with its place; `unit` is what `line` counts."""
        self.kinds[fault.kind] += 1
        if len(self.problems) < KEPT:
            self.problems.append(
                DataProblem(
                    file=file,
                    line=line,
                    unit=unit,
                    byte_offset=byte_offset,
                    path=fault.path,
                    found=fault.found,
                    expected=fault.expected,
                    remedy=fault.remedy,
                )
            )

    def message(self) -> str:
        """The number of problems by kind, then the first problems, one a line. It fits into a termination message."""
        lines = [shorten(str(problem), 400) for problem in self.problems[:_IN_MESSAGE]]
        kinds = ", ".join(f"{count:,} x {kind}" for kind, count in self.kinds.most_common())
        total = f"{self.count:,} problem" + ("s" if self.count != 1 else "")
        return "\n".join([f"{total} in the data ({kinds})", *lines])

    def raise_if_any(self) -> None:
        """Raises the problems as one error, when there are any.

        Raises:
            TrainerError: DATASET_INVALID, with the first problems and the totals.
        """
        if self.count:
            raise TrainerError(FailureReason.DATASET_INVALID, self.message())


def shorten(text: str, longest: int = 60) -> str:
    """The text, cut to `longest` characters with an ellipsis at its end."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def shown(value: object) -> str:
    """A value as a message shows it: its type and its beginning, with control characters escaped."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {_number(value)}"
        case str():
            return f"the text {shorten(value)!r}" if value else "an empty text"
        case bytes():
            return f"{len(value)} bytes of binary data"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object with the keys {keys_shown(value)}" if value else "an empty object"
    return type(value).__name__


def keys_shown(row: Mapping[str, object]) -> str:
    """The first keys of a row, each shortened."""
    names = ", ".join(repr(shorten(str(key), 24))[1:-1] for key in list(row)[:8])
    return names + (", …" if len(row) > 8 else "")


def absent_key(row: Mapping[str, object], key: str, path: str | None = None) -> Fault:
    """The fault of a row or a turn in which a key is missing or null."""
    if key in row:
        remedy = "remove the row, or fill it in"
        return Fault(kind=ProblemKind.TYPE, path=path or key, found="null", expected="a value", remedy=remedy)
    return Fault(
        kind=ProblemKind.SCHEMA,
        path=path or key,
        found=f"the keys {keys_shown(row)}" if row else "an empty object",
        expected=f"the key {key}",
        remedy="every row needs it: rename the key, name it in dataset.fields, or remove the row",
    )


def column_twice(name: str) -> Fault:
    """The fault of a table with two columns of one name."""
    return Fault(
        kind=ProblemKind.SCHEMA,
        found=f"the column {shorten(name)!r} twice",
        expected="each column once",
        remedy="rename or remove one of the two",
    )


def _number(value: float) -> str:
    # str() of a huge int is refused by Python (sys.set_int_max_str_digits) and unreadable anyway.
    return str(value) if isinstance(value, float) or value.bit_length() < 128 else "with many digits"
