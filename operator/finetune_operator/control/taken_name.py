"""A Job that has a child's name already and cannot be updated to the plan, because a Job's template is immutable."""

from collections.abc import Mapping
from typing import Any

from finetune_operator.api import names
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.kube.api import JOBS, Kube
from finetune_operator.kube.errors import Conflict, Invalid, NotFound
from finetune_operator.reconcile.observed import job_view


async def free_name(kube: Kube, record: FineTuneJobRecord, name: str) -> Invalid | None:
    """Deletes the Job if it was created for this FineTuneJob, or is an orphan.

    For this one: another version of the operator created it and stopped before it wrote the UID into the status. An
    orphan: its FineTuneJob was deleted with --cascade=orphan.

    Returns:
        The refusal in clear words if the Job is somebody else's; None if there is no Job of that name.

    Raises:
        Conflict: the name is free in a moment: try again.
    """
    try:
        raw = await kube.get(JOBS, record.namespace, name)
        metadata = raw["metadata"]
        owners = metadata.get("ownerReferences") or []
        if "deletionTimestamp" in metadata or any(_is_earlier(owner, record) for owner in owners):
            raise Conflict(f"Job {name} of an earlier FineTuneJob is not collected yet")
        view = job_view(raw)
        orphan = not owners and (metadata.get("labels") or {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
        if orphan or (view is not None and view.owner_uid == record.uid):
            await kube.delete(JOBS, record.namespace, name, uid=metadata["uid"])
            raise Conflict(f"Job {name} had another template and is deleted")
    except NotFound:
        return None
    return Invalid(
        f"there is a Job {name} that is not this FineTuneJob's. Delete it, or give the FineTuneJob another name."
    )


def _is_earlier(owner: Mapping[str, Any], record: FineTuneJobRecord) -> bool:
    """Whether an owner is a FineTuneJob that had the name before."""
    return (owner["kind"], owner["name"]) == (names.KIND, record.name) and owner["uid"] != record.uid
