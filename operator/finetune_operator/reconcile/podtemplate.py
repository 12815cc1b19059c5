"""The pod template of a stage: Pod Security `restricted`, no API token, a read-only root file system.

The recipe is an annotation of the template, which the downward API mounts as a file. So it can neither be missing nor
belong to another pod, and it needs no object of its own. Secrets are mounted by name; the operator never reads one.
"""

from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.kueue import PREFERRED_TOPOLOGY, REQUIRED_TOPOLOGY
from finetune_operator.api.quantity import parse_quantity, whole
from finetune_operator.api.resources import ResourceClaim
from finetune_operator.api.spec import PreflightScheduling
from finetune_operator.reconcile.config import Platform, ReconcileConfig
from finetune_operator.reconcile.recipe import recipe_of
from finetune_trainer.contract import layout
from finetune_trainer.contract.termination import PreflightSummary
from finetune_trainer.contract.uri import Scheme

USER_ID = 65532
GRACE_SECONDS = 120
"""Seconds between SIGTERM and SIGKILL: time for one optimizer step, to save and to upload a checkpoint."""
TOKEN_SECONDS = 3600
_MEMORY_REQUEST = "4Gi"
_PREFLIGHT_MEMORY_REQUEST = "128Mi"

_PODS_OF_AN_ATTEMPT = (names.FINETUNEJOB_UID_LABEL, names.ROLE_LABEL, names.ATTEMPT_LABEL)


def child_labels(finetunejob: FineTuneJob, role: str, attempt: int) -> dict[str, str]:
    """Labels by which children are watched and mapped to their FineTuneJob."""
    return {
        names.MANAGED_BY_LABEL: names.MANAGED_BY,
        names.FINETUNEJOB_NAME_LABEL: finetunejob.name,
        names.FINETUNEJOB_UID_LABEL: finetunejob.uid,
        names.ROLE_LABEL: role,
        names.ATTEMPT_LABEL: str(attempt),
    }


def pod_template(
    finetunejob: FineTuneJob, config: ReconcileConfig, role: str, attempt: int, checked: PreflightSummary | None = None
) -> dict[str, Any]:
    """The pod template of a stage's Job. `checked` is what preflight found, if it ran."""
    scheduling = finetunejob.spec.scheduling
    training = role == names.TRAIN_ROLE
    labels = {**(scheduling.labels or {}), **child_labels(finetunejob, role, attempt)}
    annotations = {
        **(scheduling.annotations or {}),
        names.RECIPE_ANNOTATION: recipe_of(finetunejob, attempt, checked).to_json(),
        "kubectl.kubernetes.io/default-container": names.CONTAINERS[role],
    }
    if config.hub_ca_bundle:
        annotations[names.HUB_CA_ANNOTATION] = config.hub_ca_bundle
    if training and scheduling.topology is not None:
        levels = {REQUIRED_TOPOLOGY: scheduling.topology.required, PREFERRED_TOPOLOGY: scheduling.topology.preferred}
        annotations |= {key: level for key, level in levels.items() if level is not None}
    volumes = _volumes(finetunejob, config, role)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": _pod_security(config.platform),
        "containers": [_container(finetunejob, config, role, attempt, [mount for _, mount in volumes])],
        "volumes": list({volume["name"]: volume for volume, _ in volumes}.values()),
    }
    if scheduling.service_account_name is not None:
        spec["serviceAccountName"] = scheduling.service_account_name
    own = [secret.name for secret in scheduling.image_pull_secrets or ()]
    if pull_secrets := list(dict.fromkeys([*own, *config.image_pull_secrets])):
        spec["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    if training or finetunejob.spec.preflight.scheduling is PreflightScheduling.INHERIT:
        spec.update(_placement(finetunejob))
    if training and finetunejob.spec.resources.claims:
        spec["resourceClaims"] = [_claim(claim) for claim in finetunejob.spec.resources.claims]
    if training and finetunejob.spec.resources.nodes > 1:
        spec["subdomain"] = names.service_name(finetunejob.name)
        spec.setdefault("affinity", {}).update(_apart(finetunejob, attempt))
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _pod_security(platform: Platform) -> dict[str, Any]:
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if platform is not Platform.OPENSHIFT:
        security.update(runAsUser=USER_ID, runAsGroup=USER_ID, fsGroup=USER_ID)
    return security


def _container(
    finetunejob: FineTuneJob, config: ReconcileConfig, role: str, attempt: int, mounts: list[dict[str, Any]]
) -> dict[str, Any]:
    training = role == names.TRAIN_ROLE
    container: dict[str, Any] = {
        "name": names.CONTAINERS[role],
        "image": config.trainer_image if training else config.preflight_image,
        "env": _environment(finetunejob, config, role, attempt),
        "resources": _training_resources(finetunejob) if training else _preflight_resources(finetunejob),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePath": layout.TERMINATION_PATH,
        # If the trainer crashes before it can write a message, the kubelet uses the end of the log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if config.image_pull_policy:
        container["imagePullPolicy"] = config.image_pull_policy
    if not training:
        # The image's own command is the operator.
        container["command"] = ["python", "-m", "finetune_trainer", "preflight"]
    return container


def _environment(finetunejob: FineTuneJob, config: ReconcileConfig, role: str, attempt: int) -> list[dict[str, Any]]:
    values: dict[str, str] = {
        layout.RECIPE_ENV: layout.RECIPE_PATH,
        layout.WORK_ENV: layout.WORK_PATH,
        layout.TERMINATION_ENV: layout.TERMINATION_PATH,
        "HOME": layout.WORK_PATH,
        "TMPDIR": "/tmp",  # noqa: S108 (the pod's own volume)
    }
    if finetunejob.spec.storage.secret_ref is not None:
        values[layout.STORAGE_SECRET_ENV] = layout.STORAGE_SECRET_PATH
    if finetunejob.spec.model.token_secret_ref is not None:
        values[layout.HUB_TOKEN_ENV] = layout.HUB_TOKEN_PATH
    if config.hub_endpoint:
        values["HF_ENDPOINT"] = config.hub_endpoint
        # A mirror passes on the Hub's Xet headers, but does not mirror the Xet servers
        # (huggingface_hub#4475, sonatype/nexus-public#648). Without Xet a file comes from the mirror itself.
        values["HF_HUB_DISABLE_XET"] = "1"
    if config.hub_ca_bundle:
        # The Hub's client (httpx) reads this variable. The S3 client does not; it has storage.caBundle.
        values["SSL_CERT_FILE"] = layout.HUB_CA_PATH
    if role == names.TRAIN_ROLE:
        if (tracker := finetunejob.spec.tracking.tracker) is not None and tracker.secret_ref is not None:
            values[layout.TRACKING_SECRET_ENV] = layout.TRACKING_SECRET_PATH
        # With more threads than cores, two trainings on one node are tens of times slower.
        values["OMP_NUM_THREADS"] = str(max(1, whole(finetunejob.spec.resources.cpu)))
        if finetunejob.spec.resources.nodes > 1:
            values[layout.NODES_ENV] = str(finetunejob.spec.resources.nodes)
            first = f"{names.child_name(finetunejob.name, role, attempt)}-0"
            values[layout.MASTER_ENV] = f"{first}.{names.service_name(finetunejob.name)}:{layout.MASTER_PORT}"
        if config.progress_url:
            values[layout.PROGRESS_URL_ENV] = progress_url(finetunejob, config)
            values[layout.PROGRESS_TOKEN_ENV] = layout.PROGRESS_TOKEN_PATH
    # For the preflight pod too: without a proxy's variables it could not reach storage or the Hub, and the job would
    # fail.
    added = finetunejob.spec.scheduling.env or []
    fields = {layout.POD_UID_ENV: "metadata.uid"}
    if role == names.TRAIN_ROLE:
        fields[layout.NODE_NAME_ENV] = "spec.nodeName"
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        *({"name": variable.name, "value": variable.value} for variable in added if variable.name not in values),
    ]


def progress_url(finetunejob: FineTuneJob, config: ReconcileConfig) -> str:
    """The URL to which the pods of the job post progress reports."""
    return f"{config.progress_url}/v1/jobs/{finetunejob.namespace}/{finetunejob.name}/{finetunejob.uid}/progress"


def _volumes(
    finetunejob: FineTuneJob, config: ReconcileConfig, role: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Volumes, each with its mount."""
    resources, storage, token = (
        finetunejob.spec.resources,
        finetunejob.spec.storage,
        finetunejob.spec.model.token_secret_ref,
    )
    work = {} if resources.ephemeral_storage is None else {"sizeLimit": resources.ephemeral_storage}
    from_annotations = [(layout.RECIPE_PATH, names.RECIPE_ANNOTATION)]
    if config.hub_ca_bundle:
        from_annotations.append((layout.HUB_CA_PATH, names.HUB_CA_ANNOTATION))
    items = [
        {"path": path.rsplit("/", 1)[-1], "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for path, annotation in from_annotations
    ]
    volumes = [
        _volume("recipe", {"downwardAPI": {"items": items}}, layout.RECIPE_PATH.rsplit("/", 1)[0], read_only=True),
        _volume("work", {"emptyDir": work}, layout.WORK_PATH),
        _volume("tmp", {"emptyDir": {}}, "/tmp"),  # noqa: S108
    ]
    if storage.secret_ref is not None:
        volumes.append(_secret_volume("storage-secret", storage.secret_ref.name, layout.STORAGE_SECRET_PATH))
    if token is not None:
        directory, _, file = layout.HUB_TOKEN_PATH.rpartition("/")
        volumes.append(_secret_volume("hub-token", token.name, directory, items=[{"key": token.key, "path": file}]))
    volumes += _claim_volumes(finetunejob, role)
    if role == names.TRAIN_ROLE:
        if (tracker := finetunejob.spec.tracking.tracker) is not None and tracker.secret_ref is not None:
            volumes.append(_secret_volume("tracking-secret", tracker.secret_ref.name, layout.TRACKING_SECRET_PATH))
        memory = {"medium": "Memory", "sizeLimit": resources.shared_memory}
        volumes.append(_volume("shared-memory", {"emptyDir": memory}, "/dev/shm"))  # noqa: S108
        if config.progress_url:
            directory, _, file = layout.PROGRESS_TOKEN_PATH.rpartition("/")
            source = {
                "serviceAccountToken": {
                    "audience": names.progress_audience(finetunejob.uid),
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": file,
                }
            }
            volumes.append(_volume("progress-token", {"projected": {"sources": [source]}}, directory, read_only=True))
    return volumes


def _volume(
    name: str, source: dict[str, Any], path: str, *, read_only: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    return {"name": name, **source}, mount


def _secret_volume(
    name: str, secret: str, path: str, **more: list[dict[str, str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Secret's keys as files; `more` is further fields of the volume's source."""
    # Optional: a pod that waits for a Secret gives no reason; a pod that starts without one names what is missing.
    source = {"secretName": secret, "optional": True, "defaultMode": 0o440, **more}
    return _volume(name, {"secret": source}, path, read_only=True)


def _claim_volumes(finetunejob: FineTuneJob, role: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """PersistentVolumeClaims, one volume each: mounted read-only for inputs, and once more, writable, for the cache."""
    read = _claims(finetunejob)
    cache = (
        finetunejob.spec.model.cache.authority if finetunejob.spec.model.cache and role == names.TRAIN_ROLE else None
    )
    volumes = []
    for index, claim in enumerate(dict.fromkeys([*read, *filter(None, [cache])])):
        source: dict[str, Any] = {"claimName": claim} if claim == cache else {"claimName": claim, "readOnly": True}
        name, volume = f"pvc-{index}", {"persistentVolumeClaim": source}
        if claim in read:
            volumes.append(_volume(name, volume, f"{layout.PVC_ROOT}/{claim}", read_only=True))
        if claim == cache:
            volumes.append(_volume(name, volume, layout.CACHE_ROOT))
    return volumes


def _claims(finetunejob: FineTuneJob) -> list[str]:
    """Distinct PersistentVolumeClaims from which model, data and initial adapter are read."""
    dataset = finetunejob.spec.dataset
    uris = (
        finetunejob.spec.model.uri,
        *dataset.places,
        dataset.validation_place,
        finetunejob.spec.lora.initial_adapter_uri,
    )
    return list(dict.fromkeys(uri.authority for uri in uris if uri is not None and uri.scheme is Scheme.PVC))


def _training_resources(finetunejob: FineTuneJob) -> dict[str, Any]:
    resources = finetunejob.spec.resources
    requests: dict[str, str] = {"cpu": resources.cpu, "memory": resources.memory or _MEMORY_REQUEST}
    limits: dict[str, str] = {}
    if resources.memory is not None:
        limits["memory"] = resources.memory
    if resources.cpu_limit is not None:
        limits["cpu"] = resources.cpu_limit
    if resources.ephemeral_storage is not None:
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = resources.ephemeral_storage
    claims = resources.claims or ()
    if resources.gpus and not any(claim.gpus for claim in claims):
        requests[resources.gpu_resource] = limits[resources.gpu_resource] = str(resources.gpus)
    claimed = [{"name": claim.name} for claim in claims]
    return {
        "requests": requests,
        **({"limits": limits} if limits else {}),
        **({"claims": claimed} if claimed else {}),
    }


def _claim(claim: ResourceClaim) -> dict[str, str]:
    """A claim of the pod, for dynamic resource allocation."""
    if claim.resource_claim_name is not None:
        return {"name": claim.name, "resourceClaimName": claim.resource_claim_name}
    assert claim.resource_claim_template_name is not None
    return {"name": claim.name, "resourceClaimTemplateName": claim.resource_claim_template_name}


def _preflight_resources(finetunejob: FineTuneJob) -> dict[str, Any]:
    resources = finetunejob.spec.preflight.resources
    limits = {"memory": resources.memory}
    if resources.cpu_limit is not None:
        limits["cpu"] = resources.cpu_limit
    memory = min(_PREFLIGHT_MEMORY_REQUEST, resources.memory, key=parse_quantity)
    return {"requests": {"cpu": resources.cpu, "memory": memory}, "limits": limits}


def _placement(finetunejob: FineTuneJob) -> dict[str, Any]:
    """The scheduling fields of the pod."""
    scheduling = finetunejob.spec.scheduling
    placement: dict[str, Any] = {}
    if scheduling.priority_class_name is not None:
        placement["priorityClassName"] = scheduling.priority_class_name
    if scheduling.node_selector:
        placement["nodeSelector"] = dict(scheduling.node_selector)
    if scheduling.tolerations:
        placement["tolerations"] = [toleration.to_dict() for toleration in scheduling.tolerations]
    if scheduling.runtime_class_name is not None:
        placement["runtimeClassName"] = scheduling.runtime_class_name
    if scheduling.affinity is not None:
        requirements = [item.to_dict() for item in scheduling.affinity.required_node_labels]
        terms = [{"matchExpressions": requirements}]
        placement["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        }
    return placement


def _apart(finetunejob: FineTuneJob, attempt: int) -> dict[str, Any]:
    """Anti-affinity between the training pods of an attempt. The preflight pod may still be terminating on the node."""
    labels = child_labels(finetunejob, names.TRAIN_ROLE, attempt)
    mine = {"matchLabels": {key: labels[key] for key in _PODS_OF_AN_ATTEMPT}}
    apart = [{"labelSelector": mine, "topologyKey": "kubernetes.io/hostname"}]
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}}
