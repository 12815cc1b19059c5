"""The preflight report: every check with its verdict, and every problem of the data with its place."""

from enum import StrEnum

from pydantic import Field

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.termination import OutputRecord, PreflightSummary
from finetune_trainer.contract.wire import TolerantWire


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "Passed"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class CheckResult(TolerantWire):
    """How one check ended."""

    name: str = Field(description="storage.read, storage.write, dataset, model …")
    verdict: Verdict
    reason: FailureReason | None = None
    message: str = ""


class Unit(StrEnum):
    """What a place in a file counts."""

    LINE = "line"
    ROW = "row"
    """In formats without lines: a JSON array, Parquet, a DataFrame."""

    def place(self, file: str, number: int) -> str:
        """A place in a file as messages write it."""
        return f"{file}:{number}" if self is Unit.LINE else f"{file} row {number}"


class DataProblem(TolerantWire):
    """One problem of one row."""

    file: str
    line: int = Field(ge=1, description="From 1, as editors count.")
    unit: Unit = Field(Unit.LINE, description="What `line` counts: lines, or rows in formats without lines.")
    byte_offset: int | None = Field(None, ge=0, description="Where the line starts in the decompressed file.")
    path: str = Field("", description="Key path inside the row, for example messages[2].role.")
    found: str = Field(description="What stands there, shortened.")
    expected: str
    remedy: str = ""

    def __str__(self) -> str:
        place = self.unit.place(self.file, self.line) + (f" {self.path}" if self.path else "")
        return f"{place}: found {self.found}, expected {self.expected}" + (f"; {self.remedy}" if self.remedy else "")


class TokenBucket(TolerantWire):
    """Rows of about the same length."""

    up_to: int = Field(ge=1, description="Most tokens of a row; one more than the bucket before has at most, at least.")
    rows: int = Field(ge=0)


class TokenStatistics(TolerantWire):
    """How long the rows are, with the model's tokenizer and chat template; before the cut unless it says otherwise."""

    rows: int = Field(ge=0, description="Rows that the numbers are about: all.")
    sampled_rows: int = Field(
        ge=0, description="Rows that were tokenised; when fewer than rows, the numbers are estimates from this sample."
    )
    tokens: int = Field(ge=0, description="Tokens of the trained rows after the cut: those of one epoch.")
    trained_tokens: int = Field(ge=0, description="Those of them that count in the loss.")
    truncated: int = Field(ge=0, description="Rows over dataset.maxLength, which are cut.")
    dropped: int = Field(ge=0, description="Rows without a trained token after the cut, which are left out.")
    p50: int = Field(ge=0, description="Half of the rows have at most so many tokens.")
    p95: int = Field(ge=0)
    p99: int = Field(ge=0)
    longest: int = Field(ge=0, description="Tokens of the longest row that was tokenised.")
    steps: int = Field(ge=0, description="Optimizer steps of the training.")
    max_length: int = Field(ge=1, description="dataset.maxLength.")
    histogram: list[TokenBucket] = Field(default_factory=list)


class PreflightReport(TolerantWire):
    """The whole report, as `preflight --output json` prints it."""

    passed: bool
    checks: list[CheckResult]
    problems: list[DataProblem] = Field(default_factory=list, description="The first 20.")
    problem_count: int = Field(0, ge=0)
    tokens: TokenStatistics | None = Field(None, description="How long the rows are; absent when not tokenised.")
    summary: PreflightSummary = Field(default_factory=PreflightSummary)
    fingerprint: str | None = None
    memory: dict[str, int] = Field(
        default_factory=dict, description="Least memory of the device that the training takes, in bytes by part."
    )
    existing: OutputRecord | None = Field(None, description="The adapter of this run, when it exists already.")
