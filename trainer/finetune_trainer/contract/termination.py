"""The termination message: a pod's report of its end, which needs no network.

The kubelet copies at most 4,096 bytes of it into the pod's status. A longer message is shortened here, so that it stays
valid JSON.
"""

from bisect import bisect_right
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.text import MAX_METRICS, MAX_MODULES, Count, Line, Message, PositiveCount
from finetune_trainer.contract.wire import TolerantWire

MAX_BYTES = 4096
MAX_PINNED = 16
"""Largest number of Hub data sets whose commits preflight reports."""


class Outcome(StrEnum):
    """The outcome of a pod's process."""

    SUCCEEDED = "Succeeded"
    REUSED = "Reused"
    """The adapter of this run existed already; nothing was trained."""
    FAILED = "Failed"


class OutputRecord(TolerantWire):
    """The record of a committed adapter: where it is, and what a server needs to load it."""

    uri: Line = Field(description="The adapter's folder: a plain PEFT layout.")
    merged_uri: Line | None = Field(
        None, description="The merged model's folder, with output.merged. It loads without PEFT."
    )
    manifest_uri: Line = Field(description="The manifest with the checksums of every file.")
    digest: Line = Field(description="Digest of the manifest (sha256:…).")
    size_bytes: Count = Field(description="Bytes of all files of the output.")
    base_model: Line = Field(description="The base model, as a server should name it.")
    rank: PositiveCount = Field(description="Rank of the adapter. A server's maximal LoRA rank must be at least this.")
    target_modules: list[Line] = Field(
        default_factory=list, max_length=MAX_MODULES, description="Modules that have an adapter."
    )
    metrics: dict[Line, float] = Field(
        default_factory=dict, max_length=MAX_METRICS, description="Final metrics, by name."
    )


class PreflightSummary(TolerantWire):
    """The results of preflight, as they are in `status.preflight`."""

    rows: Count | None = Field(None, description="Rows of the dataset.")
    bytes: Count | None = Field(None, description="Bytes of the dataset.")
    schema_: Line | None = Field(None, alias="schema", description="Shape of the rows.")
    problems: Count = Field(0, description="Number of problems in the data.")
    duplicates: Count | None = Field(None, description="Rows that train the same as an earlier row.")
    tokens: Count | None = Field(None, description="Tokens of one epoch, after the cut at dataset.maxLength.")
    tokens_p50: Count | None = Field(None, description="Tokens that half of the rows do not exceed.")
    tokens_p95: Count | None = Field(None, description="Tokens that 95 % of the rows do not exceed.")
    tokens_max: Count | None = Field(None, description="Tokens of the longest row.")
    truncated: Count | None = Field(None, description="Rows longer than dataset.maxLength, which are cut.")
    dropped: Count | None = Field(None, description="Rows without a token to train, which are dropped.")
    sampled_rows: Count | None = Field(
        None, description="Rows from which the numbers of tokens are estimated. Absent when all rows were counted."
    )
    steps: Count | None = Field(None, description="Optimizer steps of the training.")
    model_parameters: Count | None = Field(None, description="Weights of the base model.")
    model_bytes: Count | None = Field(None, description="Bytes of the base model's files.")
    model_revision: Line | None = Field(
        None, description="Commit of a Hub model that preflight found. Every attempt trains on it."
    )
    dataset_revisions: Annotated[dict[Line, Line], Field(max_length=MAX_PINNED)] = Field(
        default_factory=dict,
        description="Commits of Hub data sets that preflight found, by repository. Every attempt trains on them.",
    )
    memory_estimate_bytes: Count | None = Field(
        None, description="Estimated least memory of the training, in bytes: of the GPU, or of the process."
    )


class Termination(TolerantWire):
    """The termination message."""

    outcome: Outcome
    reason: FailureReason | None = None
    message: Message = ""
    fingerprint: Line | None = None
    progress: Progress | None = None
    output: OutputRecord | None = None
    preflight: PreflightSummary | None = None

    def write(self, path: Path) -> None:
        """Writes the message, shortened to what the kubelet keeps (see `fitting`).

        Raises:
            OSError: the file cannot be written.
        """
        path.write_bytes(self.fitting().to_json().encode())

    def fitting(self) -> "Termination":
        """The message in at most `MAX_BYTES` bytes. Longer JSON would be cut by the kubelet and could not be parsed.

        First the text of `message` is cut. If that is not enough, parts are removed that the manifest or the log has
        as well, in this order: progress, names of modules, metrics, results of preflight. If the URIs alone are too
        long, the result is a failure that says so.
        """
        for lighter in self._lighter():
            if (cut := _cut_to_fit(lighter)) is not None:
                return cut
        said = "the report of this pod does not fit a termination message: output.uri or model.uri is too long"
        return Termination(outcome=Outcome.FAILED, reason=FailureReason.INTERNAL, message=said)

    def _lighter(self) -> Iterator["Termination"]:
        """The message, then copies with more and more parts removed. All of them keep the text of `message`."""
        yield self
        lighter = self.model_copy(update={"progress": None})
        yield lighter
        for field, nothing in (("target_modules", []), ("metrics", {})):
            if lighter.output is not None:
                output = lighter.output.model_copy(update={field: nothing})
                lighter = lighter.model_copy(update={"output": output})
                yield lighter
        yield lighter.model_copy(update={"preflight": None})

    @classmethod
    def read(cls, text: str) -> "Termination | None":
        """The message in a pod's status; None if the text is not valid (an older image, a crash, a forgery).

        A pod's text is untrusted. Numbers, lengths and characters are checked here (`contract.text`), so every
        message that is returned fits the status of a FineTuneJob.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def _cut_to_fit(ended: Termination) -> Termination | None:
    """The message with its text cut to the longest beginning that fits; None if not even an empty text fits."""

    def size(of: Termination) -> int:
        return len(of.to_json().encode())

    def cut(kept: int) -> Termination:
        return ended.model_copy(update={"message": ended.message[:kept] + "…"})

    if size(ended) <= MAX_BYTES:
        return ended
    if size(cut(0)) > MAX_BYTES:
        return None
    # A character takes one to twelve bytes as JSON. The binary search finds the first length that is too long.
    return cut(bisect_right(range(len(ended.message) + 1), MAX_BYTES, key=lambda kept: size(cut(kept))) - 1)
