"""What a file would do to the job that is in the cluster, and when it would act."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.spec import IMMUTABLE
from finetune_operator.cli.views.compare import different_settings
from finetune_operator.cli.views.job import JobView

_AT_ONCE = ("suspend", "runToken", "retry", "retention", "startDeadlineSeconds", "activeDeadlineSeconds",
            "stallTimeoutSeconds")  # fmt: skip
_OF_MODEL = ("model.tokenSecretRef", "model.cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting that the file changes.

    Attributes:
        path: where.
        before, after: its values.
        acts: when it acts.
    """

    path: str
    before: str
    after: str
    acts: str


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """The settings that differ between the job as it is and as it would be."""
    return [
        Change(path=path, before=old, after=new, acts=_when(path))
        for path, old, new in different_settings(JobView(before), JobView(after))
    ]


def _when(path: str) -> str:
    section = path.partition(".")[0].partition("[")[0]
    if section in _AT_ONCE:
        return "at once"
    if section in IMMUTABLE or section == "managedBy" or (section == "model" and not path.startswith(_OF_MODEL)):
        return "never: create a job with another name"
    return "from the next attempt on"
