"""The child Jobs: one batch/v1 Job a stage and attempt.

A Job never retries by itself (`backoffLimit: 0`): why an attempt ended decides whether there is another. The one thing
it does is to replace a pod that was disrupted, which needs no operator; not one of several, which start together or not
at all. `suspend` is not set: a queue may own it.
"""

from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.podtemplate import child_labels, pod_template
from finetune_trainer.contract import layout

_SINGLE_POD: dict[str, Any] = {
    "podFailurePolicy": {
        "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    },
}
_INDEXED_PODS: dict[str, Any] = {
    # Numbered pods, which find each other by name. One that ends without success ends all of them, whatever its reason:
    # a replacement would wait for others that are past their beginning, or done.
    "completionMode": "Indexed",
}


def child_job(
    finetunejob: FineTuneJob, config: ReconcileConfig, role: str, attempt: int, revision: str | None = None
) -> dict[str, Any]:
    """The manifest of a stage's Job; `revision` is the commit of a Hub model where preflight has found it."""
    nodes = finetunejob.spec.resources.nodes if role == names.TRAIN_ROLE else 1
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.child_name(finetunejob.name, role, attempt),
            "namespace": finetunejob.namespace,
            "labels": child_labels(finetunejob, role, attempt),
            "ownerReferences": [owner_reference(finetunejob)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": nodes,
            "parallelism": nodes,
            # With a podFailurePolicy the API server demands Failed: a replacement waits for the end of the pod.
            "podReplacementPolicy": "Failed",
            **(_INDEXED_PODS if nodes > 1 else _SINGLE_POD),
            "template": pod_template(finetunejob, config, role, attempt, revision),
        },
    }


def headless_service(finetunejob: FineTuneJob) -> dict[str, Any]:
    """Gives the pods of one attempt names that the others can resolve, before they are ready too.

    One for all attempts: each has pods of other names.
    """
    selector = {names.JOB_UID_LABEL: finetunejob.uid, names.ROLE_LABEL: names.TRAIN_ROLE}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(finetunejob.name),
            "namespace": finetunejob.namespace,
            "labels": {
                names.MANAGED_BY_LABEL: names.MANAGED_BY,
                names.JOB_NAME_LABEL: finetunejob.name,
                names.JOB_UID_LABEL: finetunejob.uid,
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
    """Makes the garbage collector remove the child with its FineTuneJob."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": finetunejob.name,
        "uid": finetunejob.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
