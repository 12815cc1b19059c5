"""From one status to the next as a JSON merge patch.

Two writers share the status: the controller, and the progress writer with `status.progress`. Neither may wipe the
other's part, so a patch names only what its writer changed, and it holds only for the version of the object that it
was made from (409 otherwise): a late progress record never overwrites the last one of a finished job, and a namesake
that took the job's place is never written. The UID would not do for that: /status ignores it (seen on 1.36).

Server-side apply would not do either: a field that was applied once and is then left out is removed, and after an
attempt's end the controller has applied progress.
"""

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.status import FineTuneJobStatus, ProgressStatus


def status_patch(version: str, known: FineTuneJobStatus, desired: FineTuneJobStatus) -> dict[str, Any] | None:
    """The patch of the object that leads from the status of a version to the one wanted; None when they mean the same.

    Lists are replaced whole, as a merge patch does. Fields that this version of the operator does not know stay.
    """
    changes = _merge_diff(known.to_dict(), desired.to_dict())
    return {"metadata": {"resourceVersion": version}, "status": changes} if changes else None


def progress_patch(version: str, progress: ProgressStatus) -> dict[str, Any]:
    """The patch that replaces `status.progress` alone; a null removes what an earlier record had and this one lacks."""
    whole = progress.model_dump(mode="json", by_alias=True)
    return {"metadata": {"resourceVersion": version}, "status": {"progress": whole}}


def _merge_diff(known: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {key: None for key in known if key not in desired}
    for key, value in desired.items():
        before = known.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if nested := _merge_diff(before, value):
                changes[key] = nested
        elif value != before:
            changes[key] = value
    return changes
