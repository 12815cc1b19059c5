"""Objects as the API server sends them, with the fields that the control loop reads."""

from typing import Any

from finetune_operator.api import names

CREATED = "2026-11-24T10:00:00Z"
MINIMAL_SPEC = {
    "model": {"uri": "hf://org/model"},
    "dataset": {"uri": "s3://data/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}


def a_finetunejob(
    name: str = "job",
    *,
    uid: str = "uid-1",
    version: int = 1,
    generation: int = 1,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    deleting: bool = False,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "namespace": "team",
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": CREATED,
        "managedFields": [{"manager": "kubectl"}],
    }
    if deleting:
        metadata["deletionTimestamp"] = CREATED
    return {"metadata": metadata, "spec": {**MINIMAL_SPEC, **(spec or {})}, "status": status or {}}


def finished_status(generation: int = 1, run_token: str | None = None, **fields: Any) -> dict[str, Any]:
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "attempt": 1,
        "conditions": [
            {"type": "Finished", "status": "True", "reason": "TrainingSucceeded", "lastTransitionTime": CREATED}
        ],
        **fields,
    }
    if run_token is not None:
        status["runToken"] = run_token
    return status


def a_job(
    name: str = "job-train-1", *, uid: str = "job-uid-1", owner: str = "uid-1", version: int = 1, complete: bool = False
) -> dict[str, Any]:
    conditions = [{"type": "Complete", "status": "True"}] if complete else []
    return {
        "metadata": {
            "namespace": "team",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": CREATED,
            "labels": labels(owner),
            "ownerReferences": [{"kind": names.KIND, "name": "job", "uid": owner, "controller": True}],
        },
        "status": {"conditions": conditions},
    }


def a_pod(
    name: str = "job-train-1-abcde",
    *,
    uid: str = "pod-uid-1",
    owner: str = "uid-1",
    job_uid: str = "job-uid-1",
    version: int = 1,
    phase: str = "Running",
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "creationTimestamp": CREATED,
            "labels": labels(owner),
            "ownerReferences": [{"kind": "Job", "name": "job-train-1", "uid": job_uid, "controller": True}],
        },
        "status": {"phase": phase},
    }


def labels(owner: str) -> dict[str, str]:
    return {
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.FINETUNEJOB_UID_LABEL: owner,
        names.ROLE_LABEL: names.TRAIN_ROLE,
        names.ATTEMPT_LABEL: "1",
    }
