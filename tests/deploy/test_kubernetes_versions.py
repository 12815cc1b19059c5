"""Everything that is installed or created, against the schemas of Kubernetes 1.30 to 1.36.

Each API server would warn of a field that it does not know, and leave it out. scripts/kubernetes_schemas.py writes the
schemas from the versions' own OpenAPI documents.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.kubernetes_schemas import VERSIONS

from deploy.rendering import CHART, NAMESPACE, Manifest, kustomize, objects_of_helm_test, render
from deploy.test_overlays import OVERLAYS
from finetune_operator.api.finetunejob import FineTuneJob, parse_job
from finetune_operator.config import read_config
from finetune_operator.reconcile.manifests import child_job, headless_service
from localcluster import binaries

SCHEMAS = json.loads((Path(__file__).parent / "kubernetes_schemas.json").read_text(encoding="utf-8"))
MINORS = [version.rpartition(".")[0] for version in VERSIONS]

EVERYTHING: dict[str, Any] = {
    "images": {"pullSecrets": ["registry"]},
    "commonLabels": {"team": "ml"},
    "replicaCount": 2,
    "watchNamespaces": ["team-a"],
    "jobs": {"imagePullSecrets": ["registry"]},
    "serviceAccount": {"annotations": {"a": "b"}},
    "service": {"annotations": {"a": "b"}, "ipFamilyPolicy": "PreferDualStack"},
    "networkPolicy": {"egress": [{"ports": [{"protocol": "TCP", "port": 443}]}], "jobs": {"enabled": True}},
    "podDisruptionBudget": {"enabled": True},
    "extraArgs": ["--workers=64"],
    "extraEnv": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["s3"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["192.0.2.2"]},
}


@pytest.fixture(scope="module")
def objects() -> list[Manifest]:
    """What the chart installs and tests, with every option; what the overlays install; what the operator creates."""
    installed = [*render(EVERYTHING).values(), *objects_of_helm_test(EVERYTHING).values(), *render().values()]
    for overlay in OVERLAYS:
        installed += kustomize(overlay).values()
    return [*installed, *created()]


def created() -> Iterator[Manifest]:
    """The operator's own objects for a job on several nodes, with everything mounted."""
    [container] = kustomize("default")["Deployment", NAMESPACE, "finetune-operator"]["spec"]["template"]["spec"][
        "containers"
    ]
    environment = {item["name"]: item.get("value", "") for item in container["env"]}
    config = read_config({**environment, "FINETUNE_IMAGE_PULL_SECRETS": "registry"}, fallback_identity="me").reconcile
    job = stored()
    for role in ("preflight", "train"):
        yield child_job(job, config, role, 1)
    yield headless_service(job)


def stored() -> FineTuneJob:
    """A FineTuneJob as the operator reads it."""
    return parse_job(
        {
            "metadata": {
                "name": "support-bot",
                "namespace": "team-a",
                "uid": "11111111-2222-3333-4444-555555555555",
                "generation": 1,
                "creationTimestamp": "2026-11-24T12:00:00Z",
            },
            "spec": {
                "model": {"uri": "hf://org/base", "tokenSecretRef": {"name": "hub"}, "cache": "pvc://models/cache"},
                "dataset": {"uri": "pvc://data/train.jsonl"},
                "output": {"uri": "s3://models/adapters"},
                "storage": {"secretRef": {"name": "keys"}},
                "resources": {"nodes": 2, "gpus": 2},
                "scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"gpu": "a"}},
            },
        }
    )


@pytest.mark.parametrize("minor", MINORS)
def test_every_object_is_known_to_this_version(minor: str, objects: list[Manifest]) -> None:
    assert len(objects) > 80
    found = [problem for item in objects for problem in problems(minor, item)]
    assert found == []


def test_the_reader_of_schemas_finds_what_a_version_does_not_know() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    image = {**pod, "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "image": {"reference": "r"}}]}}
    assert list(problems("1.30", image)) == ["Pod/a: .spec.volumes[0].image: is not known"]
    assert list(problems("1.36", image)) == []
    broken = {**pod, "spec": {"containers": [{"image": 1}], "hostPID": "yes"}}
    assert sorted(problems("1.36", broken)) == [
        "Pod/a: .spec.containers[0].image: is no string",
        "Pod/a: .spec.containers[0].name: is missing",
        "Pod/a: .spec.hostPID: is no boolean",
    ]


def test_the_versions_are_those_that_the_chart_allows_and_the_newest_is_the_one_that_runs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["kubeVersion"] == f">={MINORS[0]}.0-0"
    assert [f"1.{number}" for number in range(int(MINORS[0][2:]), int(MINORS[-1][2:]) + 1)] == MINORS
    assert f"v{VERSIONS[-1]}" == binaries._KUBERNETES
    notes = (CHART / "templates/NOTES.txt").read_text(encoding="utf-8")
    newest = int(MINORS[-1][2:])
    assert re.search(rf">=1\.{newest + 1}\.0-0.*\({MINORS[0]} to {MINORS[-1]}\)", notes, re.DOTALL)


def problems(minor: str, item: Manifest) -> Iterator[str]:
    """What a version's API server would not take or not keep of an object."""
    kind = f"{item['apiVersion']}/{item['kind']}"
    for problem in _check(minor, {"$ref": kind}, item, ""):
        yield f"{item['kind']}/{item['metadata']['name']}: {problem}"


_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "object": dict,
    "array": list,
}


def _check(minor: str, schema: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    number = False
    while "$ref" in schema:
        number = number or schema["$ref"].endswith((".Quantity", ".IntOrString"))
        [schema] = [one["schema"] for one in SCHEMAS[schema["$ref"]] if minor in one["versions"]]
    if value is None:
        return  # the same as a field that is not there
    number = number or schema.get("format") == "int-or-string"
    kind = schema.get("type")
    if kind and not (isinstance(value, _TYPES[kind]) or (number and isinstance(value, int | float))):
        yield f"{path}: is no {kind}"
        return
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from _check(minor, schema.get("items", {}), part, f"{path}[{index}]")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}.{name}: is missing"
        for name, part in value.items():
            if name in properties:
                yield from _check(minor, properties[name], part, f"{path}.{name}")
            elif "additionalProperties" in schema:
                yield from _check(minor, schema["additionalProperties"], part, f"{path}.{name}")
            elif properties:
                yield f"{path}.{name}: is not known"
