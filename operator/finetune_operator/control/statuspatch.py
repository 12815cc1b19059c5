"""From one status to the next as a JSON merge patch.

Two writers share the status: the controller, and the progress writer with `status.progress`. Neither may wipe the
other's part, so a patch names only what its writer changed. Server-side apply would not do: a field that was applied
once and is then left out is removed, and after an attempt's end the controller has applied progress.
"""

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.status import FineTuneJobStatus, ProgressStatus


def status_patch(uid: str, known: FineTuneJobStatus, wanted: FineTuneJobStatus) -> dict[str, Any] | None:
    """The patch of the object that leads from the status last known to the one wanted; None when they mean the same.

    Lists are replaced whole, as a merge patch does. The UID makes it fail (409) on a namesake.
    """
    changes = _merge_diff(known.to_dict(), wanted.to_dict())
    if "progress" in changes:
        changes["progress"] = None if wanted.progress is None else whole_progress(wanted.progress)
    return {"metadata": {"uid": uid}, "status": changes} if changes else None


def progress_patch(uid: str, resource_version: str, progress: ProgressStatus) -> dict[str, Any]:
    """The patch that replaces `status.progress` alone.

    The resourceVersion makes it fail (409) when anything changed since: a record that comes late must not overwrite the
    last one of a finished job.
    """
    metadata = {"uid": uid, "resourceVersion": resource_version}
    return {"metadata": metadata, "status": {"progress": whole_progress(progress)}}


def whole_progress(progress: ProgressStatus) -> dict[str, Any]:
    """Every field of a record; a null removes what an earlier one had and this one lacks."""
    return progress.model_dump(mode="json", by_alias=True)


def _merge_diff(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {key: None for key in known if key not in wanted}
    for key, value in wanted.items():
        before = known.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if nested := _merge_diff(before, value):
                changes[key] = nested
        elif value != before:
            changes[key] = value
    return changes
