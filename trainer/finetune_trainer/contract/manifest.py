"""The manifest: the commit of a run's output, and the record of what made it.

It is written last, with `If-None-Match: *`; an adapter without one does not exist. Paths are relative to the
manifest's own place, so a copied run can be checked where it lies.
"""

from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from finetune_trainer.contract.history import LossSummary
from finetune_trainer.contract.text import MAX_TEXT, Count, Line, PositiveCount, RelativePath, printable
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.contract.wire import TolerantWire

MANIFEST_VERSION = 1


class ManifestFile(TolerantWire):
    """One file of the output."""

    path: RelativePath = Field(description="Relative to the manifest's place, with '/'.")
    size: Count = Field(description="Bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SourceObject(TolerantWire):
    """One stored object that went in."""

    uri: str
    size: int = Field(ge=0, description="Bytes.")
    etag: str | None = None
    sha256: str | None = None
    revision: str | None = Field(None, description="Commit of a Hub model's file.")

    @property
    def location(self) -> Uri:
        """The parsed URI.

        Raises:
            ValueError: the name climbs.
        """
        return parse_uri(self.uri)


class DataFacts(TolerantWire):
    """What became of the rows."""

    tokens: int = Field(ge=0, description="Tokens of the trained rows, after the cut.")
    trained_tokens: int = Field(ge=0, description="Those of them that count in the loss.")
    truncated: int = Field(ge=0, description="Rows that were cut to dataset.maxLength.")
    dropped: int = Field(ge=0, description="Rows without a trained token, which were left out.")
    longest: int = Field(ge=0, description="Tokens of the longest row before any cut.")
    duplicates: int = Field(ge=0, description="Rows that repeat one before.")
    validation: int = Field(0, ge=0, description="Rows that were kept out of training to measure it.")
    trained_too: int = Field(
        0, ge=0, description="Validation rows of their own that were left out because they are trained."
    )


class MemoryFacts(TolerantWire):
    """What the training took of the memory, beside what it was estimated to take; in bytes."""

    estimate_bytes: int | None = Field(None, ge=0, description="Of the GPU, or of the process without one.")
    peak_gpu_memory_bytes: int | None = Field(None, ge=0, description="The most that tensors had of the GPU.")
    peak_gpu_reserved_bytes: int | None = Field(None, ge=0, description="The most that torch's allocator held of it.")
    peak_memory_bytes: int | None = Field(None, ge=0, description="The most that was resident of the process.")


class Manifest(TolerantWire):
    """What was made, from what, by whom."""

    version: int = MANIFEST_VERSION
    fingerprint: Line
    adapter: RelativePath = Field(description="The adapter's folder, relative to the manifest's place.")
    merged: RelativePath | None = Field(
        None, description="The merged model's folder, relative to the manifest's place, when there is one."
    )
    files: list[ManifestFile]
    base_model: Line = Field(description="The base model as a server should name it.")
    base_model_revision: Line | None = Field(None, description="The commit that was trained on, of a Hub model.")
    dataset: list[SourceObject]
    initial_adapter: list[SourceObject] = Field(
        default_factory=list, description="The files of the adapter that was continued from."
    )
    rows: int | None = Field(None, ge=0)
    data: DataFacts | None = None
    rank: PositiveCount
    target_modules: list[Line]
    metrics: dict[Line, float] = Field(default_factory=dict)
    memory: MemoryFacts | None = None
    losses: LossSummary = Field(default_factory=LossSummary, description="How the loss went.")
    versions: dict[str, str] = Field(default_factory=dict, description="Packages that shaped the result.")
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="The recipe, without the job's identity and the storage's addresses."
    )
    attempt: Count
    writer: Line
    job_uid: Line | None = Field(
        None,
        description="UID of the FineTuneJob that made it: its next attempt knows its own by it. None in a local run.",
    )
    created: datetime

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @classmethod
    def parse(cls, content: bytes) -> "Manifest":
        """The manifest in an object.

        Raises:
            ValueError: it is none that this version understands; the message says why, in one line.
        """
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            field = printable(".".join(str(part) for part in wrong["loc"][:3])[:MAX_TEXT])
            raise ValueError(f"it is no manifest: {f'{field}: ' if field else ''}{wrong['msg']}") from None
        if manifest.version != MANIFEST_VERSION:
            raise ValueError(f"its version is {manifest.version}, and this trainer reads version {MANIFEST_VERSION}")
        return manifest

    @classmethod
    def read(cls, content: bytes) -> "Manifest | None":
        """The manifest in an object, or None when it is none that this version understands."""
        try:
            return cls.parse(content)
        except ValueError:
            return None

    def belongs_to(self, uid: str) -> bool:
        """Whether the job with that UID made it; never for the empty UID of a local run."""
        return bool(uid) and self.job_uid == uid
