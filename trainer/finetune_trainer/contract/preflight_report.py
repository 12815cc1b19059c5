"""The preflight report: every check with its verdict, and every problem of the data with its place."""

from enum import StrEnum

from pydantic import Field

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.termination import OutputRecord, PreflightSummary
from finetune_trainer.contract.text import Printable, Readable
from finetune_trainer.contract.wire import TolerantWire


class Verdict(StrEnum):
    """The result of a check."""

    PASSED = "Passed"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class CheckResult(TolerantWire):
    """One check with its verdict."""

    name: str = Field(description="Name of the check: storage.read, storage.write, dataset, model …")
    verdict: Verdict
    reason: FailureReason | None = None
    message: Readable = ""


class Unit(StrEnum):
    """The unit in which places in a file are counted."""

    LINE = "line"
    ROW = "row"
    """For formats without lines: a JSON array, Parquet, a DataFrame."""

    def place(self, file: str, number: int) -> str:
        """The text of a place in a file, for messages: FILE:5, or FILE row 5."""
        return f"{file}:{number}" if self is Unit.LINE else f"{file} row {number}"


class DataProblem(TolerantWire):
    """One problem of one row."""

    file: Printable
    line: int = Field(ge=1, description="Number of the line or row, from 1.")
    unit: Unit = Field(Unit.LINE, description="What `line` counts: lines, or rows in formats without lines.")
    byte_offset: int | None = Field(None, ge=0, description="Byte offset of the line in the decompressed file.")
    path: Printable = Field("", description="Key path inside the row, for example messages[2].role.")
    found: Printable = Field(description="The value in the data, shortened.")
    expected: Printable
    remedy: Printable = ""

    def __str__(self) -> str:
        place = self.unit.place(self.file, self.line) + (f" {self.path}" if self.path else "")
        return f"{place}: found {self.found}, expected {self.expected}" + (f"; {self.remedy}" if self.remedy else "")


class TokenBucket(TolerantWire):
    """A bucket of the histogram: the rows with lengths in a range."""

    up_to: int = Field(
        ge=1, description="Largest number of tokens in a row. The smallest is one more than that of the bucket before."
    )
    rows: int = Field(ge=0)


class TokenStatistics(TolerantWire):
    """The lengths of the rows with the model's tokenizer and chat template.

    Lengths are in tokens, before the cut at `dataset.maxLength` unless a field says otherwise.
    """

    rows: int = Field(ge=0, description="Number of all rows.")
    sampled_rows: int = Field(
        ge=0,
        description="Number of tokenised rows. If it is less than rows, the other numbers are estimates from this "
        "sample.",
    )
    tokens: int = Field(ge=0, description="Tokens of the trained rows in one epoch, after the cut.")
    trained_tokens: int = Field(ge=0, description="Tokens of the trained rows that are in the loss, after the cut.")
    truncated: int = Field(ge=0, description="Rows longer than dataset.maxLength, which are cut.")
    dropped: int = Field(ge=0, description="Rows without a trained token after the cut, which are left out.")
    p50: int = Field(ge=0, description="Tokens that half of the rows do not exceed.")
    p95: int = Field(ge=0, description="Tokens that 95 % of the rows do not exceed.")
    p99: int = Field(ge=0, description="Tokens that 99 % of the rows do not exceed.")
    longest: int = Field(ge=0, description="Tokens of the longest row that was tokenised.")
    steps: int = Field(ge=0, description="Optimizer steps of the training.")
    max_length: int = Field(ge=1, description="dataset.maxLength.")
    histogram: list[TokenBucket] = Field(default_factory=list)


class PreflightReport(TolerantWire):
    """The whole report, as `preflight --output json` prints it."""

    passed: bool
    checks: list[CheckResult]
    problems: list[DataProblem] = Field(default_factory=list, description="The first 20 problems of the data.")
    problem_count: int = Field(0, ge=0, description="Number of all problems of the data.")
    tokens: TokenStatistics | None = Field(
        None, description="Lengths of the rows in tokens. Absent if the rows were not tokenised."
    )
    summary: PreflightSummary = Field(default_factory=PreflightSummary)
    fingerprint: str | None = None
    memory: dict[str, int] = Field(
        default_factory=dict, description="Smallest device memory in which the training fits, in bytes, by part."
    )
    existing: OutputRecord | None = Field(None, description="The adapter of this run, if it exists already.")
