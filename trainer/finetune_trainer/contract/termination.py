"""The termination message: how a pod says how it ended, without a network.

The kubelet keeps at most 4,096 bytes of it and puts them into the pod's status; a longer message is cut to fit here, so
that it stays JSON.
"""

from bisect import bisect_right
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.progress import Progress
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

    uri: str = Field(description="The adapter's folder.")
    merged_uri: str | None = Field(None, description="The merged model's folder, when there is one.")
    manifest_uri: str
    digest: str = Field(description="sha256:… of the manifest's bytes.")
    size_bytes: int = Field(ge=0)
    base_model: str
    rank: int
    target_modules: list[str] = Field(default_factory=list)
    metrics: dict[str, float] = Field(default_factory=dict)


class PreflightSummary(TolerantWire):
    """What preflight found, short enough for a status."""

    rows: int | None = Field(None, ge=0)
    bytes: int | None = Field(None, ge=0)
    schema_: str | None = Field(None, alias="schema")
    problems: int = Field(0, ge=0, description="Problems found in the data, in all.")
    duplicates: int | None = Field(None, ge=0, description="Rows that train what a row before has trained.")
    tokens: int | None = Field(None, ge=0, description="Tokens of one epoch, after the cut.")
    tokens_p50: int | None = Field(None, ge=0)
    tokens_p95: int | None = Field(None, ge=0)
    tokens_max: int | None = Field(None, ge=0)
    truncated: int | None = Field(None, ge=0)
    dropped: int | None = Field(None, ge=0)
    sampled_rows: int | None = Field(None, ge=0, description="Rows behind these estimates; absent when all.")
    steps: int | None = Field(None, ge=0)
    model_parameters: int | None = None
    model_bytes: int | None = None
    model_revision: str | None = Field(None, description="The commit that a Hub model's revision means.")
    memory_estimate_bytes: int | None = Field(
        None, ge=0, description="Least memory of the device that the training takes, by estimate."
    )


class Termination(TolerantWire):
    """The whole message."""

    outcome: Outcome
    reason: FailureReason | None = None
    message: str = ""
    fingerprint: str | None = None
    progress: Progress | None = None
    output: OutputRecord | None = None
    preflight: PreflightSummary | None = None

    def write(self, path: Path) -> None:
        """Writes the message, cut to what the kubelet keeps."""
        text = self.to_json().encode()
        if len(text) > MAX_BYTES:
            text = self._longest_that_fits().to_json().encode()
        path.write_bytes(text)

    def _longest_that_fits(self) -> "Termination":
        """The message with as many of its first letters as fit; a letter takes one to twelve bytes as JSON."""

        def cut(kept: int) -> Termination:
            return self.model_copy(update={"message": self.message[:kept] + "…"})

        lengths = range(len(self.message) + 1)
        # The first length that is too long; 0 letters are what is left when even they are.
        first = bisect_right(lengths, MAX_BYTES, key=lambda kept: len(cut(kept).to_json().encode()))
        return cut(max(0, first - 1))

    @classmethod
    def read(cls, text: str) -> "Termination | None":
        """The message in a pod's status, or None when it is none of ours (an older image, a crash)."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None
