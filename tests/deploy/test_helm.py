"""The chart: the same objects as the manifests, values that cannot be misspelt, and installs on a real API server."""

import copy
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from deploy.rendering import CHART, NAMESPACE, RELEASE, Key, Manifest, kustomize, render, render_text
from deploy.server import RefusedError, Server
from finetune_operator.config import read_config
from finetune_trainer.contract.version import __version__

OPERATOR = ("Deployment", NAMESPACE, "finetune-operator")
CRD = ("CustomResourceDefinition", "", "finetunejobs.finetune.dev")
DIGEST = "sha256:" + "a" * 64


def test_lint() -> None:
    assert helm_python.lint(CHART, strict=True)["errors"] == []


def test_the_chart_and_the_manifests_are_the_same() -> None:
    manifests = kustomize("default")
    del manifests["Namespace", "", NAMESPACE]  # Helm makes it itself
    assert _plain(render()) == _plain(manifests)


def test_the_chart_and_the_overlay_for_openshift_are_the_same() -> None:
    manifests = kustomize("openshift")
    del manifests["Namespace", "", NAMESPACE]
    chart = render({"platform": "openshift"})
    for objects in (chart, manifests):
        _container(objects)["env"].sort(key=lambda item: item["name"])  # a patched list has another order
    assert _plain(chart) == _plain(manifests)
    security = manifests[OPERATOR]["spec"]["template"]["spec"]["securityContext"]
    assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_two_releases_share_no_object_but_the_crd() -> None:
    first, second = (set(render(name=name)) for name in ("blue", "green"))
    assert first & second == {CRD}
    assert {name for kind, _, name in first if kind == "Deployment"} == {"blue-finetune-operator"}
    selectors = [
        [
            item["spec"].get("selector") or item["spec"].get("podSelector")
            for key, item in objects.items()
            if key[0] in _SELECT
        ]
        for objects in (render(name=name) for name in ("blue", "green"))
    ]
    assert not [one for one in selectors[0] if one in selectors[1]], "a Service must not find the other's pods"


_SELECT = ("Deployment", "Service", "NetworkPolicy")


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("finetune-operator", {}, "finetune-operator"),
        ("a-finetune-operator-b", {}, "a-finetune-operator-b"),
        ("blue", {}, "blue-finetune-operator"),
        ("b" * 53, {}, f"{'b' * 53}-finetune"),
        ("blue", {"fullnameOverride": "tuner"}, "tuner"),
    ],
)
def test_objects_are_named_after_the_release(release: str, values: dict[str, Any], name: str) -> None:
    objects = render(values, name=release)
    [deployment] = [key[2] for key in objects if key[0] == "Deployment"]
    assert deployment == name
    assert {key[2].removeprefix(name) for key in objects if key != CRD} == {
        "", "-token-review", "-lease", "-view", "-edit", "-children", "-services",
    }  # fmt: skip
    environment = {
        item["name"]: item.get("value")
        for item in objects["Deployment", NAMESPACE, name]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment["FINETUNE_LEASE_NAME"] == name
    assert environment["FINETUNE_PROGRESS_URL"] == f"http://{name}.{NAMESPACE}.svc:8080"


def test_rendering_is_deterministic() -> None:
    assert render_text() == render_text()


def test_versions() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 2},
        {"crds": {"enable": False}},
        {"images": {"operator": {"tagg": "1"}}},
        {"images": {"operator": {"digest": "latest"}}},
        {"images": {"pullPolicy": "Sometimes"}},
        {"watchNamespaces": "team-a"},
        {"jobs": {"serviceAccount": "trainer"}},
        {"resources": {"request": {}}},
        {"platform": "OpenShift"},
        {"fullnameOverride": "Tuner"},
        {"gpuPrices": {"nvidia.com/gpu": 2.5}},
        {"gpuPrices": {"nvidia.com/gpu": "2,50"}},
        {"metrics": {"serviceMonitor": {"enable": True}}},
        {"metrics": {"prometheusRule": {"disabled": ["CheckpointOld"]}}},
    ],
    ids=json.dumps,
)
def test_a_misspelt_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        render(values)


def test_every_value_is_in_the_schema_and_every_object_of_it_is_closed() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def check(value: Any, part: dict[str, Any], path: str) -> None:
        if "$ref" in part:
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[-1]]
        if "properties" not in part:
            return
        assert part["additionalProperties"] is False, path
        known = set(part["properties"]) - ({"global"} if path == "" else set())  # Helm adds it to every subchart
        assert known == set(value) or path == ".resources", path
        for name in known & set(value):
            check(value[name], part["properties"][name], f"{path}.{name}")

    check(values, schema, "")


def test_images_by_tag_digest_and_mirror() -> None:
    images = {"registry": "mirror.example.com", "operator": {"tag": "1.2"}, "trainer": {"tag": "1.2", "digest": DIGEST}}
    container = _container(render({"images": images}))
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"] == environment["FINETUNE_OPERATOR_IMAGE"] == "mirror.example.com/finetune-operator:1.2"
    assert environment["FINETUNE_TRAINER_IMAGE"] == f"mirror.example.com/finetune-trainer@{DIGEST}"


def test_watched_namespaces_get_roles_and_the_cluster_none() -> None:
    objects = render({"watchNamespaces": ["team-a", "team-b"], "rbac": {"aggregateRoles": False}})
    everywhere = render()["ClusterRole", "", "finetune-operator"]["rules"]
    for namespace in ("team-a", "team-b"):
        assert objects["Role", namespace, "finetune-operator"]["rules"] == everywhere
        assert objects["RoleBinding", namespace, "finetune-operator"]["subjects"] == [
            {"kind": "ServiceAccount", "name": "finetune-operator", "namespace": NAMESPACE}
        ]
    assert [name for kind, _, name in objects if kind == "ClusterRole"] == ["finetune-operator-token-review"]
    environment = {item["name"]: item.get("value") for item in _container(objects)["env"]}
    assert environment["FINETUNE_WATCH_NAMESPACES"] == "team-a,team-b"


def test_what_the_administrator_allows_reaches_the_operator() -> None:
    values = {"jobs": {"serviceAccounts": ["default", "trainer"], "allowRemoteCode": True}, "replicaCount": 2}
    objects = render(values)
    environment = {item["name"]: item.get("value") for item in _container(objects)["env"]}
    assert environment["FINETUNE_SERVICE_ACCOUNTS"] == "default,trainer"
    assert environment["FINETUNE_ALLOW_REMOTE_CODE"] == "true"
    assert objects[OPERATOR]["spec"]["replicas"] == 2


def test_a_mirror_of_the_hub_reaches_the_operator() -> None:
    bundle = "-----BEGIN CERTIFICATE-----\nAA: {{ no template }}\n-----END CERTIFICATE-----\n"
    objects = render({"hub": {"endpoint": "https://hub.example.com", "caBundle": bundle}})
    environment = {item["name"]: item.get("value") for item in _container(objects)["env"]}
    assert environment["FINETUNE_HUB_ENDPOINT"] == "https://hub.example.com"
    assert environment["FINETUNE_HUB_CA_BUNDLE"] == bundle
    assert not any("HUB" in item["name"] for item in _container(render({}))["env"])


def test_the_price_list_reaches_the_operator() -> None:
    prices = {"nvidia.com/gpu": "2.50", "nvidia.com/gpu.product=NVIDIA-L4": "0.80"}
    environment = {item["name"]: item.get("value", "x") for item in _container(render({"gpuPrices": prices}))["env"]}
    config = read_config(environment, fallback_identity="x")
    assert config.reconcile.gpu_prices == {key: Decimal(price) for key, price in prices.items()}


def test_metrics_are_served_to_the_namespace_of_prometheus_and_nothing_else_is_installed() -> None:
    objects = render()
    policy = objects["NetworkPolicy", NAMESPACE, "finetune-operator"]["spec"]["ingress"]
    assert policy[1] == {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"protocol": "TCP", "port": "metrics"}],
    }
    assert not {kind for kind, _, _ in objects} & {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap"}
    without = render({"metrics": {"enabled": False, "serviceMonitor": {"enabled": True}}})
    assert "metrics" not in json.dumps([value for key, value in without.items() if key[0] != CRD[0]])
    closed = render({"metrics": {"from": []}})["NetworkPolicy", NAMESPACE, "finetune-operator"]["spec"]["ingress"]
    assert closed == policy[:1]


def test_monitors_scrape_the_port_that_the_operator_serves() -> None:
    monitor = {"enabled": True, "labels": {"release": "kube-prometheus-stack"}, "interval": "15s"}
    tls = {"secretName": "metrics-tls", "clientCertificates": True}
    config = {"serverName": "finetune-operator"}
    values = {"metrics": {"serviceMonitor": {**monitor, "tlsConfig": config}, "podMonitor": monitor, "tls": tls}}
    objects = render(values)
    service, pod = (objects[kind, NAMESPACE, "finetune-operator"] for kind in ("ServiceMonitor", "PodMonitor"))
    assert service["spec"]["endpoints"] == [
        {"port": "metrics", "interval": "15s", "honorLabels": True, "scheme": "https", "tlsConfig": config}
    ]
    assert service["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    labels = objects["Service", NAMESPACE, "finetune-operator"]["metadata"]["labels"]
    assert service["spec"]["selector"]["matchLabels"].items() <= labels.items()
    template = objects[OPERATOR]["spec"]["template"]
    assert pod["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    container = _container(objects)
    environment = {item["name"]: item.get("value", "x") for item in container["env"]}
    config_read = read_config(environment, fallback_identity="x")
    assert {"name": "metrics", "containerPort": config_read.metrics_port} in container["ports"]
    assert config_read.metrics_client_certificates
    [mount] = [item for item in container["volumeMounts"] if item["mountPath"] == config_read.metrics_tls]
    assert {"name": mount["name"], "secret": {"secretName": "metrics-tls"}} in template["spec"]["volumes"]


def test_alerts_can_be_left_out_and_keep_their_own_templates() -> None:
    values = {"metrics": {"prometheusRule": {"enabled": True, "disabled": ["FinetuneCheckpointOld"]}}}
    groups = render(values)["PrometheusRule", NAMESPACE, "finetune-operator"]["spec"]["groups"]
    whole = yaml.safe_load((CHART / "files/alerts.yaml").read_text())["groups"]
    for group in whole:
        group["rules"] = [rule for rule in group["rules"] if rule["alert"] != "FinetuneCheckpointOld"]
    assert groups == whole
    assert "{{ $labels.namespace }}" in groups[0]["rules"][0]["annotations"]["summary"]


def test_the_dashboard_is_a_config_map_that_grafana_s_sidecar_finds() -> None:
    values = {"metrics": {"dashboard": {"enabled": True, "annotations": {"folder": "ml"}}}}
    config_map = render(values)["ConfigMap", NAMESPACE, "finetune-operator-dashboard"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["metadata"]["annotations"] == {"folder": "ml"}
    [text] = config_map["data"].values()
    assert json.loads(text) == json.loads((CHART / "files/dashboard.json").read_text())


def test_placement_reaches_the_pod() -> None:
    values: dict[str, Any] = {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "system-cluster-critical",
    }
    spec = render(values)[OPERATOR]["spec"]["template"]["spec"]
    assert {name: spec[name] for name in values} == values


def test_the_crd_can_be_left_to_others_or_let_go() -> None:
    assert render()[CRD]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert CRD not in render({"crds": {"enabled": False}})
    assert "annotations" not in render({"crds": {"keep": False}})[CRD]["metadata"]
    assert (
        "deletes every FineTuneJob" in render_text({"crds": {"keep": False}})["finetune-operator/templates/NOTES.txt"]
    )


@pytest.mark.cluster
def test_install_upgrade_and_uninstall_keep_the_jobs(control_plane: Server, tmp_path: Path) -> None:
    with helm_python.Config(namespace=NAMESPACE, kubeconfig_path=control_plane.kubeconfig) as config:
        release = config.install(CHART, RELEASE, create_namespace=True)
        control_plane.wait_established()

        notes = render_text()["finetune-operator/templates/NOTES.txt"]
        sample = re.search(r"<<EOF\n(.*?)\n  EOF", notes, re.DOTALL)
        assert sample
        control_plane.apply(yaml.safe_load(sample[1]))

        config.upgrade(CHART, RELEASE, {"replicaCount": 2})
        deployment = control_plane.get("deployment", "finetune-operator", f"--namespace={NAMESPACE}")
        assert deployment["spec"]["replicas"] == 2
        control_plane.apply(yaml.safe_load(sample[1]))
        config.uninstall(RELEASE)
    assert release is not None
    assert control_plane.kubectl("get", "ftj", "--output=name").split() == ["finetunejob.finetune.dev/support-bot"]
    with pytest.raises(RefusedError, match="not found"):
        control_plane.get("deployment", "finetune-operator", f"--namespace={NAMESPACE}")


def _container(objects: dict[Key, Manifest]) -> dict[str, Any]:
    [container] = objects[OPERATOR]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _plain(objects: dict[Key, Manifest]) -> dict[Key, Manifest]:
    """Without what Helm adds to every object."""
    plain = copy.deepcopy(objects)
    for item in plain.values():
        metadata = item["metadata"]
        own = (
            "helm.sh/chart",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
            "app.kubernetes.io/version",
        )
        metadata["labels"] = {name: value for name, value in metadata["labels"].items() if name not in own}
        annotations = metadata.pop("annotations", {})
        annotations.pop("helm.sh/resource-policy", None)
        if annotations:
            metadata["annotations"] = annotations
    return plain
