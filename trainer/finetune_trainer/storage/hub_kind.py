"""The two kinds of Hub repositories that a run reads: models and data sets.

They have different addresses on the Hub. In messages they have different names, reasons and fields.
"""

from dataclasses import dataclass

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.uri import HUB_DATASETS


@dataclass(frozen=True, slots=True, kw_only=True)
class HubKind:
    """A kind of repository.

    Attributes:
        noun: what it is called in messages.
        route: its segment in the Hub's API.
        repo_type: its name in the Hub's client; None for models.
        uri_field, revision_field: the fields of the spec, for messages.
        not_found: there is no such repository, revision or file.
        denied: the Hub refuses it.
        invalid: a file is damaged.
    """

    noun: str
    route: str
    repo_type: str | None
    uri_field: str
    revision_field: str
    not_found: FailureReason
    denied: FailureReason
    invalid: FailureReason


MODEL = HubKind(
    noun="model",
    route="models",
    repo_type=None,
    uri_field="model.uri",
    revision_field="model.revision",
    not_found=FailureReason.MODEL_NOT_FOUND,
    denied=FailureReason.MODEL_ACCESS_DENIED,
    invalid=FailureReason.MODEL_INVALID,
)
DATASET = HubKind(
    noun="data set",
    route="datasets",
    repo_type="dataset",
    uri_field="dataset.uri",
    revision_field="dataset.revision",
    not_found=FailureReason.DATASET_NOT_FOUND,
    denied=FailureReason.DATASET_ACCESS_DENIED,
    invalid=FailureReason.DATASET_INVALID,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """A repository: `org/name` of a kind."""

    name: str
    kind: HubKind

    @classmethod
    def of(cls, authority: str) -> "HubRepository":
        """Returns the repository of a URI's authority: `org/name`, or `datasets/org/name`."""
        prefix = f"{HUB_DATASETS}/"
        if authority.startswith(prefix):
            return cls(name=authority.removeprefix(prefix), kind=DATASET)
        return cls(name=authority, kind=MODEL)
