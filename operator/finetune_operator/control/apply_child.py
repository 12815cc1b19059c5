"""Applying a child, where an object of its name may exist.

An operator may have created the child and stopped before it wrote the UID into the status. But a child's name is known
in advance, so another client can create an object of that name first. Server-side apply with force takes such an object
over, and changes only the fields that the manifest names. So a Service of another owner is left as it is. And a Job
counts as ours only if its whole spec is what the server makes of our manifest: with our template, and a command or a
container of its own beside it, another client's Job can be applied without an error. managedFields do not tell whose it
is: a client can write them.
"""

import copy
from collections.abc import Mapping
from typing import Any

from finetune_operator.api import names
from finetune_operator.kube.api import JOBS, SERVICES, Kube
from finetune_operator.kube.errors import Conflict, Invalid

_ASSIGNED_LABELS = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
)
"""Labels of the template that the server takes from the Job's name and UID."""

_FOREIGN = "an object that the operator did not create has this name."


async def apply_job(kube: Kube, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Applies a Job and returns it.

    Raises:
        Invalid: a Job of this name exists, and has another template, or more than the manifest.
        KubeError: a request failed.
    """
    raw, created = await kube.apply(JOBS, manifest)
    if not created:
        await _check_spec(kube, manifest, raw)
    return raw


async def apply_service(kube: Kube, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Applies a Service and returns it.

    Raises:
        Invalid: a Service of this name exists, and another object controls it, or none.
        KubeError: a request failed.
    """
    metadata = manifest["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    try:
        return await kube.create(SERVICES, namespace, manifest)
    except Conflict:
        # An empty patch changes nothing and answers with the object. The operator has no right to get Services.
        existing = await kube.merge(SERVICES, namespace, name, {}, field_manager=names.FIELD_MANAGER)
    [owner] = metadata["ownerReferences"]
    owners = existing["metadata"].get("ownerReferences") or ()
    if not any(item["uid"] == owner["uid"] and item.get("controller") for item in owners):
        raise Invalid(_FOREIGN, status=422)
    return (await kube.apply(SERVICES, manifest)).raw


async def _check_spec(kube: Kube, manifest: Mapping[str, Any], existing: Mapping[str, Any]) -> None:
    """Accepts a Job that existed before the manifest was applied to it, if its spec is the manifest's."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "name"}
    # The name is taken. The server gives this one another, and does not keep it.
    named = {**manifest, "metadata": {**metadata, "generateName": f"{manifest['metadata']['name']}-"}}
    made = await kube.create(JOBS, metadata["namespace"], named, dry_run=True)
    if _own(existing["spec"]) != _own(made["spec"]):
        raise Invalid(_FOREIGN, status=422)


def _own(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A Job's spec without what the server assigns, and without `suspend`, which a queue such as Kueue may own."""
    own = copy.deepcopy({key: value for key, value in spec.items() if key not in ("selector", "suspend")})
    labels = own["template"]["metadata"].get("labels") or {}
    own["template"]["metadata"]["labels"] = {key: labels[key] for key in labels if key not in _ASSIGNED_LABELS}
    return own
