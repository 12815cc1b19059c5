"""The termination message: how a pod says how it ended, without a network.

The kubelet keeps at most 4,096 bytes of it and puts them into the pod's status; a longer message is cut to fit here, so
that it stays JSON.
"""

from bisect import bisect_right
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.text import MAX_METRICS, MAX_MODULES, Count, Line, Message, PositiveCount
from finetune_trainer.contract.wire import TolerantWire

MAX_BYTES = 4096


class Outcome(StrEnum):
    """How the process ended."""

    SUCCEEDED = "Succeeded"
    REUSED = "Reused"
    """The adapter of this run existed already; nothing was trained."""
    FAILED = "Failed"


class OutputRecord(TolerantWire):
    """Where the adapter is."""

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
    """What preflight found. It is `status.preflight` as it is."""

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
    memory_estimate_bytes: Count | None = Field(
        None, description="Estimated least memory of the training, in bytes: of the GPU, or of the process."
    )


class Termination(TolerantWire):
    """The whole message."""

    outcome: Outcome
    reason: FailureReason | None = None
    message: Message = ""
    fingerprint: Line | None = None
    progress: Progress | None = None
    output: OutputRecord | None = None
    preflight: PreflightSummary | None = None

    def write(self, path: Path) -> None:
        """Writes the message, cut to what the kubelet keeps; see `fitting`."""
        path.write_bytes(self.fitting().to_json().encode())

    def fitting(self) -> "Termination":
        """This end in at most `MAX_BYTES`, since JSON that the kubelet cuts is none, and its end would be unknown.

        First the message loses its last letters. Then goes what stands in the manifest or the log too: the record of
        progress, the modules' names, the metrics, what preflight found. An end whose addresses alone are too long is
        a failure that says so.
        """
        for lighter in self._lighter():
            if (cut := _cut_to_fit(lighter)) is not None:
                return cut
        said = "the report of this pod does not fit a termination message: output.uri or model.uri is too long"
        return Termination(outcome=Outcome.FAILED, reason=FailureReason.INTERNAL, message=said)

    def _lighter(self) -> Iterator["Termination"]:
        """This end with less and less beside the message."""
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
        """The message in a pod's status, or None when it is none of ours (an older image, a crash, a forgery).

        Whatever a pod writes, what is returned fits the status of a FineTuneJob: numbers, lengths and letters are
        checked here (`contract.text`), so that no end can be read that cannot be booked.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def _cut_to_fit(ended: Termination) -> Termination | None:
    """The end with as many of its message's first letters as fit; None when not even an empty one does."""

    def size(of: Termination) -> int:
        return len(of.to_json().encode())

    def cut(kept: int) -> Termination:
        return ended.model_copy(update={"message": ended.message[:kept] + "…"})

    if size(ended) <= MAX_BYTES:
        return ended
    if size(cut(0)) > MAX_BYTES:
        return None
    # A letter takes one to twelve bytes as JSON; the first length that is too long is sought.
    return cut(bisect_right(range(len(ended.message) + 1), MAX_BYTES, key=lambda kept: size(cut(kept))) - 1)
