"""The pods: restricted, without an API token, with the recipe that the spec says."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.api import names
from finetune_operator.reconcile.config import Platform
from finetune_operator.reconcile.manifests import child_job
from finetune_trainer.contract import layout
from finetune_trainer.contract.recipe import Recipe
from unit.reconcile.world import CONFIG, a_job

ROLES = [names.PREFLIGHT_ROLE, names.TRAIN_ROLE]


def pod_of(role: str, **spec: Any) -> dict[str, Any]:
    template: dict[str, Any] = child_job(a_job(**spec), CONFIG, role, 1)["spec"]["template"]
    return template


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("role", ROLES)
def test_every_pod_meets_the_restricted_standard_and_holds_no_api_token(role: str) -> None:
    spec = pod_of(role)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds <= {"downwardAPI", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


@pytest.mark.parametrize("role", ROLES)
def test_user_and_groups_are_fixed_or_left_to_the_platform(role: str) -> None:
    fixed = pod_of(role)["spec"]["securityContext"]
    assert {fixed.pop(name) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {65532}
    config = replace(CONFIG, platform=Platform.OPENSHIFT)
    assert child_job(a_job(), config, role, 1)["spec"]["template"]["spec"]["securityContext"] == fixed


@pytest.mark.parametrize("role", ROLES)
def test_the_mounted_recipe_is_the_spec(role: str) -> None:
    pod = pod_of(role, lora={"rank": 8}, training={"maxSteps": 30}, runToken="t")
    recipe = Recipe.model_validate_json(pod["metadata"]["annotations"][names.RECIPE_ANNOTATION])
    assert (recipe.lora.rank, recipe.training.max_steps, recipe.run_token) == (8, 30, "t")
    assert (recipe.job.name, recipe.job.namespace, recipe.job.attempt) == ("support-bot", "team-a", 1)
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "recipe")
    mount = next(item for item in pod["spec"]["containers"][0]["volumeMounts"] if item["name"] == "recipe")
    path = volume["downwardAPI"]["items"][0]["path"]
    assert f"{mount['mountPath']}/{path}" == environment(pod)[layout.RECIPE_ENV]


def test_only_training_asks_for_a_gpu() -> None:
    assert "nvidia.com/gpu" not in json.dumps(pod_of(names.PREFLIGHT_ROLE))
    resources = pod_of(names.TRAIN_ROLE)["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in json.dumps(pod_of(names.TRAIN_ROLE, resources={"gpus": 0}))


def test_only_the_training_pod_knows_its_node_and_none_may_use_the_cpu_instead() -> None:
    for role in ROLES:
        variables = {item["name"]: item for item in pod_of(role)["spec"]["containers"][0]["env"]}
        assert layout.ALLOW_CPU_ENV not in variables
        assert (layout.NODE_NAME_ENV in variables) is (role == names.TRAIN_ROLE)
    source = {item["name"]: item for item in pod_of(names.TRAIN_ROLE)["spec"]["containers"][0]["env"]}
    assert source[layout.NODE_NAME_ENV]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


PLACEMENT = {
    "priorityClassName": "batch-low",
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "runtimeClassName": "nvidia",
    "affinity": {"requiredNodeLabels": [{"key": "zone", "operator": "In", "values": ["a"]}]},
}


@pytest.mark.parametrize(("scheduling", "placed"), [("inherit", True), ("none", False)])
def test_preflight_runs_where_training_does_or_anywhere(scheduling: str, placed: bool) -> None:
    pod = pod_of(names.PREFLIGHT_ROLE, scheduling=PLACEMENT, preflight={"scheduling": scheduling})["spec"]
    trained = pod_of(names.TRAIN_ROLE, scheduling=PLACEMENT)["spec"]
    for field in PLACEMENT:
        assert pod.get(field) == (trained[field] if placed else None)
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["requests"]


def test_resources_of_both_pods_can_meet_a_quota_on_limits() -> None:
    preflight = {"resources": {"cpu": "250m", "cpuLimit": "1", "memory": "2Gi"}}
    [container] = pod_of(names.PREFLIGHT_ROLE, preflight=preflight)["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "2Gi"},
    }
    [container] = pod_of(names.TRAIN_ROLE, resources={"cpuLimit": "8", "memory": "32Gi"})["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert "cpu" not in pod_of(names.TRAIN_ROLE)["spec"]["containers"][0]["resources"].get("limits", {})


def test_a_request_is_never_above_its_limit() -> None:
    [container] = pod_of(names.PREFLIGHT_ROLE, preflight={"resources": {"memory": "64Mi"}})["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"] == "64Mi"


def test_secrets_are_mounted_by_name_and_never_in_the_environment() -> None:
    pod = pod_of(names.TRAIN_ROLE, storage={"secretRef": {"name": "s3-credentials"}})
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "storage-secret")
    assert volume["secret"]["secretName"] == "s3-credentials"
    assert "secretKeyRef" not in json.dumps(pod)
    assert environment(pod)[layout.STORAGE_SECRET_ENV] == layout.STORAGE_SECRET_PATH


def test_a_trackers_secret_is_mounted_where_it_trains_and_nowhere_else() -> None:
    tracking = {"wandb": {"secretRef": {"name": "wandb"}}}
    pod, preflight = (pod_of(role, tracking=tracking) for role in (names.TRAIN_ROLE, names.PREFLIGHT_ROLE))
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "tracking-secret")
    assert volume["secret"] == {"secretName": "wandb", "optional": True, "defaultMode": 0o440}
    assert environment(pod)[layout.TRACKING_SECRET_ENV] == layout.TRACKING_SECRET_PATH
    assert "tracking-secret" not in [item["name"] for item in preflight["spec"]["volumes"]]
    assert layout.TRACKING_SECRET_ENV not in environment(preflight)


def test_the_progress_token_is_for_this_job_alone() -> None:
    pod = pod_of(names.TRAIN_ROLE)
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "progress-token")
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    assert token["audience"] == names.progress_audience(a_job().uid)
    assert environment(pod)[layout.PROGRESS_URL_ENV].startswith("http://operator:8080/v1/jobs/team-a/support-bot/")


def test_the_user_adds_but_never_replaces() -> None:
    scheduling = {
        "labels": {"team": "a"},
        "annotations": {"note": "x"},
        "env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "OMP_NUM_THREADS", "value": "64"}],
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "priorityClassName": "batch",
        "affinity": {"requiredNodeLabels": [{"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["40000"]}]},
    }
    pod = pod_of(names.TRAIN_ROLE, scheduling=scheduling)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"][names.ROLE_LABEL] == names.TRAIN_ROLE
    assert pod["metadata"]["annotations"]["note"] == "x"
    assert environment(pod)["NCCL_DEBUG"] == "WARN"
    assert environment(pod)["OMP_NUM_THREADS"] == "1"
    listed = [item["name"] for item in pod["spec"]["containers"][0]["env"]]
    assert len(listed) == len(set(listed))
    assert pod["spec"]["nodeSelector"] == {"gpu": "h100"}
    assert pod["spec"]["priorityClassName"] == "batch"
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchExpressions"][0]["key"] == "nvidia.com/gpu.memory"


@pytest.mark.parametrize("role", [names.PREFLIGHT_ROLE, names.TRAIN_ROLE])
def test_pull_secrets_of_the_job_and_of_the_administrator(role: str) -> None:
    config = replace(CONFIG, image_pull_secrets=("registry", "mirror"))
    own = {"imagePullSecrets": [{"name": "mine"}, {"name": "mirror"}]}
    for spec, found in (({"scheduling": own}, ["mine", "mirror", "registry"]), ({}, ["registry", "mirror"])):
        pod = child_job(a_job(**spec), config, role, 1)["spec"]["template"]["spec"]
        assert [secret["name"] for secret in pod["imagePullSecrets"]] == found
    assert "imagePullSecrets" not in pod_of(role)


def test_preflight_has_the_same_proxy_variables() -> None:
    scheduling = {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}
    assert environment(pod_of(names.PREFLIGHT_ROLE, scheduling=scheduling))["HTTPS_PROXY"] == "http://proxy:3128"


def test_claims_are_mounted_once_and_read_only() -> None:
    pod = pod_of(names.TRAIN_ROLE, model={"uri": "pvc://models/llama"}, dataset={"uri": "pvc://models/train.jsonl"})
    claims = [item["persistentVolumeClaim"] for item in pod["spec"]["volumes"] if "persistentVolumeClaim" in item]
    assert claims == [{"claimName": "models", "readOnly": True}]
    mounts = [item["mountPath"] for item in pod["spec"]["containers"][0]["volumeMounts"]]
    assert f"{layout.PVC_ROOT}/models" in mounts


@pytest.mark.parametrize("role", ROLES)
def test_the_hubs_token_is_there_for_data_alone(role: str) -> None:
    model = {"uri": "s3://models/llama", "tokenSecretRef": {"name": "hub"}}
    pod = pod_of(role, model=model, dataset={"uri": "hf://datasets/org/name"})
    assert environment(pod)[layout.HUB_TOKEN_ENV] == layout.HUB_TOKEN_PATH
    assert "hub" in [item["secret"]["secretName"] for item in pod["spec"]["volumes"] if "secret" in item]


@pytest.mark.parametrize("role", ROLES)
def test_every_pod_asks_the_mirror_of_the_hub(role: str) -> None:
    config = replace(CONFIG, hub_endpoint="https://hub.example.com", hub_ca_bundle="PEM")
    pod: dict[str, Any] = child_job(a_job(), config, role, 1)["spec"]["template"]
    assert environment(pod)["HF_ENDPOINT"] == "https://hub.example.com"
    assert environment(pod)["HF_HUB_DISABLE_XET"] == "1"
    file = environment(pod)["SSL_CERT_FILE"]
    [mount] = [item for item in pod["spec"]["containers"][0]["volumeMounts"] if item["name"] == "recipe"]
    [volume] = [item for item in pod["spec"]["volumes"] if item["name"] == "recipe"]
    annotations = {
        f"{mount['mountPath']}/{item['path']}": item["fieldRef"]["fieldPath"] for item in volume["downwardAPI"]["items"]
    }
    assert annotations[file] == "metadata.annotations['finetune.dev/hub-ca']"
    assert pod["metadata"]["annotations"]["finetune.dev/hub-ca"] == "PEM"
    assert not {"HF_ENDPOINT", "HF_HUB_DISABLE_XET", "SSL_CERT_FILE"} & environment(pod_of(role)).keys()


@pytest.mark.parametrize(
    ("cache", "data", "read_only"),
    [
        ("pvc://cache/models", "pvc://data/train.jsonl", {"data": True, "cache": False}),
        ("pvc://shared/models", "pvc://shared/train.jsonl", {"shared": False}),
    ],
)
def test_training_alone_may_write_to_the_cache(cache: str, data: str, read_only: dict[str, bool]) -> None:
    sections = {"model": {"uri": "hf://org/llama", "cache": cache}, "dataset": {"uri": data}}
    pod = pod_of(names.TRAIN_ROLE, **sections)["spec"]
    claims = [item["persistentVolumeClaim"] for item in pod["volumes"] if "persistentVolumeClaim" in item]
    assert {item["claimName"]: item.get("readOnly", False) for item in claims} == read_only
    assert len(claims) == len(read_only), "one volume a claim"
    volumes = {item["name"] for item in pod["volumes"]}
    mounts = {item["mountPath"]: item for item in pod["containers"][0]["volumeMounts"]}
    assert {item["name"] for item in mounts.values()} == volumes
    assert "readOnly" not in mounts[layout.CACHE_ROOT]
    assert mounts[f"{layout.PVC_ROOT}/{data.split('/')[2]}"]["readOnly"] is True

    preflight = pod_of(names.PREFLIGHT_ROLE, **sections)["spec"]
    assert layout.CACHE_ROOT not in json.dumps(preflight)
    assert all(item["persistentVolumeClaim"]["readOnly"] for item in preflight["volumes"] if "pvc" in item["name"])


@pytest.mark.parametrize(("cpu", "threads"), [("500m", "1"), ("4", "4"), ("2500m", "2"), (3, "3")])
def test_threads_follow_the_cores(cpu: object, threads: str) -> None:
    assert environment(pod_of(names.TRAIN_ROLE, resources={"cpu": cpu}))["OMP_NUM_THREADS"] == threads


@given(
    job=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
    role=st.sampled_from(ROLES),
    attempt=st.integers(1, 100_000),
)
def test_child_names_are_labels_that_end_with_role_and_attempt(job: str, role: str, attempt: int) -> None:
    name = names.child_name(job, role, attempt)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert name.endswith(f"-{role}-{attempt}")


def test_long_names_that_differ_at_the_end_have_different_children() -> None:
    assert names.child_name("a" * 62 + "b", "train", 1) != names.child_name("a" * 62 + "c", "train", 1)


@pytest.mark.parametrize("long", ["a" * 52, "a" * 63, "a" + "-" * 61 + "a"])
@pytest.mark.parametrize("role", ROLES)
def test_no_job_can_be_named_so_that_its_child_is_that_of_a_job_with_a_long_name(long: str, role: str) -> None:
    child = names.child_name(long, role, 1)
    chosen = child.removesuffix(f"-{role}-1")
    assert names.child_name(chosen, role, 1) != child
