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
    """The adapter of this very run was there already; nothing was trained."""
    FAILED = "Failed"


class OutputRecord(TolerantWire):
    """Where the adapter is."""

    uri: Line = Field(description="The adapter's folder.")
    merged_uri: Line | None = Field(None, description="The merged model's folder, when there is one.")
    manifest_uri: Line
    digest: Line = Field(description="sha256:… of the manifest's bytes.")
    size_bytes: Count
    base_model: Line
    rank: PositiveCount
    target_modules: list[Line] = Field(default_factory=list, max_length=MAX_MODULES)
    metrics: dict[Line, float] = Field(default_factory=dict, max_length=MAX_METRICS)


class PreflightSummary(TolerantWire):
    """What preflight found, short enough for a status."""

    rows: Count | None = None
    bytes: Count | None = None
    schema_: Line | None = Field(None, alias="schema")
    problems: Count = Field(0, description="Problems found in the data, in all.")
    duplicates: Count | None = Field(None, description="Rows that train what a row before has trained.")
    tokens: Count | None = Field(None, description="Tokens of one epoch, after the cut.")
    tokens_p50: Count | None = None
    tokens_p95: Count | None = None
    tokens_max: Count | None = None
    truncated: Count | None = None
    dropped: Count | None = None
    sampled_rows: Count | None = Field(None, description="Rows behind these estimates; absent when all.")
    steps: Count | None = None
    model_parameters: Count | None = None
    model_bytes: Count | None = None
    model_revision: Line | None = Field(None, description="The commit that a Hub model's revision means.")
    memory_estimate_bytes: Count | None = Field(
        None, description="Least memory of the device that the training takes, by estimate."
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
