"""The child Jobs: one batch/v1 Job for each stage and attempt.

A Job never retries by itself (`backoffLimit: 0`): the operator decides on another attempt by the reason of the failure.
The Job only replaces a disrupted pod, which needs no operator. It replaces none of several pods, because these must
start together. `suspend` is not set, because a queue such as Kueue may own it.
"""

from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.kueue import MAX_TIME_LABEL, PRIORITY_LABEL, QUEUE_LABEL
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.podtemplate import child_labels, pod_template
from finetune_trainer.contract import layout
from finetune_trainer.contract.termination import PreflightSummary

_SINGLE_POD: dict[str, Any] = {
    "podFailurePolicy": {
        "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    },
}
_INDEXED_PODS: dict[str, Any] = {
    # Indexed pods find each other by name. If one fails, all end, whatever the reason: a replacement would wait for
    # others that have started long ago, or have ended.
    "completionMode": "Indexed",
}


def child_job(
    finetunejob: FineTuneJob, config: ReconcileConfig, role: str, attempt: int, checked: PreflightSummary | None = None
) -> dict[str, Any]:
    """The manifest of a stage's Job. `checked` is what preflight found, if it ran."""
    nodes = finetunejob.spec.resources.nodes if role == names.TRAIN_ROLE else 1
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.child_name(finetunejob.name, role, attempt),
            "namespace": finetunejob.namespace,
            "labels": {**queue_labels(finetunejob.spec, role), **child_labels(finetunejob, role, attempt)},
            "ownerReferences": [owner_reference(finetunejob)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": nodes,
            "parallelism": nodes,
            # The API server requires Failed with a podFailurePolicy: a replacement waits until the pod has ended.
            "podReplacementPolicy": "Failed",
            **(_INDEXED_PODS if nodes > 1 else _SINGLE_POD),
            "template": pod_template(finetunejob, config, role, attempt, checked),
        },
    }


def queue_labels(spec: FineTuneJobSpec, role: str) -> dict[str, str]:
    """The labels by which Kueue manages a child Job; none without a queue."""
    if role == names.PREFLIGHT_ROLE:
        return {QUEUE_LABEL: spec.preflight.queue_name} if spec.preflight.queue_name is not None else {}
    scheduling = spec.scheduling
    labels = {
        QUEUE_LABEL: scheduling.queue_name,
        PRIORITY_LABEL: scheduling.workload_priority_class_name,
        MAX_TIME_LABEL: None if spec.active_deadline_seconds is None else str(spec.active_deadline_seconds),
    }
    return {key: value for key, value in labels.items() if value is not None}


def headless_service(finetunejob: FineTuneJob) -> dict[str, Any]:
    """The headless Service by which the pods of an attempt resolve each other's names, also before they are ready.

    One Service serves all attempts, because the pods of each attempt have different names.
    """
    selector = {names.FINETUNEJOB_UID_LABEL: finetunejob.uid, names.ROLE_LABEL: names.TRAIN_ROLE}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(finetunejob.name),
            "namespace": finetunejob.namespace,
            "labels": {
                names.MANAGED_BY_LABEL: names.MANAGED_BY,
                names.FINETUNEJOB_NAME_LABEL: finetunejob.name,
                names.FINETUNEJOB_UID_LABEL: finetunejob.uid,
            },
            "ownerReferences": [owner_reference(finetunejob)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "rendezvous", "port": layout.MASTER_PORT, "protocol": "TCP"}],
        },
    }


def owner_reference(finetunejob: FineTuneJob) -> dict[str, Any]:
    """The controller owner reference, by which the garbage collector deletes the child with its FineTuneJob."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": finetunejob.name,
        "uid": finetunejob.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
