"""Status patches: JSON merge patches with optimistic concurrency.

Two writers share the status: the controller, and the progress writer for `status.progress`. Neither may remove the
other's fields, so a patch names only what its writer changed. It carries the resourceVersion that it was made from, so
the API server answers 409 if the object has changed. A late progress record never overwrites the last one of a finished
job, and a new FineTuneJob with the same name never gets the old one's status. The UID as a precondition does not
work: /status ignores it (seen on 1.36).

Server-side apply does not work either. It removes a field that a manager applied once and then leaves out, and the
controller applies progress at the end of an attempt.
"""

from collections.abc import Mapping
from typing import Any

from finetune_operator.api.status import FineTuneJobStatus, ProgressStatus


def status_patch(version: str, known: FineTuneJobStatus, desired: FineTuneJobStatus) -> dict[str, Any] | None:
    """The patch from the known status to the desired one; None if they are equal.

    A merge patch replaces whole lists. Fields that this version of the operator does not know stay.

    Args:
        version: resourceVersion of the object with the known status.
        known: the status that the desired one was derived from.
        desired: the status to write.
    """
    changes = _merge_diff(known.to_dict(), desired.to_dict())
    return {"metadata": {"resourceVersion": version}, "status": changes} if changes else None


def progress_patch(version: str, progress: ProgressStatus) -> dict[str, Any]:
    """The patch that replaces `status.progress` only. A null removes a field that this record does not have."""
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
