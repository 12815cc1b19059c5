"""The chart: the same objects as the manifests, values that cannot be misspelt, and installs on a real API server."""

import base64
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from deploy.rendering import (
    CHART,
    NAMESPACE,
    RELEASE,
    Key,
    Manifest,
    objects_of_helm_test,
    render,
    render_text,
)
from deploy.server import RefusedError, Server
from finetune_operator.api.finetunejob import parse_spec
from finetune_operator.config import read_config
from finetune_trainer.contract.version import __version__

OPERATOR = ("Deployment", NAMESPACE, "finetune-operator")
CRD = ("CustomResourceDefinition", "", "finetunejobs.finetune.dev")
CRDS = {
    CRD,
    *(("CustomResourceDefinition", "", f"{name}finetuneprofiles.finetune.dev") for name in ("", "cluster")),
}
NOTES = "finetune-operator/templates/NOTES.txt"
DIGEST = "sha256:" + "a" * 64


def test_lint() -> None:
    assert helm_python.lint(CHART, strict=True)["errors"] == []


def test_two_releases_share_no_object_but_the_crd() -> None:
    first, second = (set(render(name=name)) for name in ("blue", "green"))
    assert first & second == CRDS
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
    assert {key[2].removeprefix(name) for key in objects if key not in CRDS} == {
        "", "-cluster-profiles", "-token-review", "-lease", "-view", "-edit", "-children", "-services",
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
        {"images": {"registry": "https://mirror.example.com"}},
        {"images": {"pullSecrets": [{"names": "keys"}]}},
        {"extraEnv": [{"name": "A", "val": "1"}]},
        {"extraEnv": [{"name": "A", "value": 1}]},
        {"podLabels": {"team": "a b"}},
        {"networkPolicy": {"jobs": {"ports": ["https"]}}},
        {"podDisruptionBudget": {"minAvailable": "half"}},
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
        # A larger chart hands every part all of its globals; the chart itself refuses them where it is the whole.
        assert part.get("additionalProperties") is False or path == ".global", path
        known = set(part["properties"])
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


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({"images": {"registry": "mirror.example.com/"}}, "mirror.example.com/finetune-operator"),
        ({"images": {"registry": "mirror.example.com:5000/team"}}, "mirror.example.com:5000/team/finetune-operator"),
        ({"global": {"imageRegistry": "global.example.com"}}, "global.example.com/finetune-operator"),
        (
            {"global": {"imageRegistry": "global.example.com"}, "images": {"registry": "mirror.example.com"}},
            "mirror.example.com/finetune-operator",
        ),
        ({"images": {"operator": {"registry": ""}}}, "finetune-operator"),
    ],
    ids=json.dumps,
)
def test_registries(values: dict[str, Any], image: str) -> None:
    assert _container(render(values))["image"] == f"{image}:{__version__}"


def test_pull_secrets_of_the_operator_and_of_jobs_by_name_and_as_objects() -> None:
    values = {
        "images": {"pullSecrets": ["a", {"name": "b"}]},
        "global": {"imagePullSecrets": [{"name": "c"}, "a"]},
        "jobs": {"imagePullSecrets": [{"name": "d"}, "e"]},
    }
    objects = render(values)
    assert objects[OPERATOR]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": name} for name in "abc"]
    assert _environment(objects)["FINETUNE_IMAGE_PULL_SECRETS"] == "d,e"
    assert "FINETUNE_IMAGE_PULL_SECRETS" not in _environment(render())
    [pod] = [item for key, item in objects_of_helm_test(values).items() if key[0] == "Pod"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": name} for name in "abc"]


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"global": {"imageRegistri": "r", "storageClass": "s"}}, ["global.imageRegistri: ", "global.storageClass: "]),
        ({"serviceAccount": {"create": False}}, ["serviceAccount.name: "]),
        ({"podLabels": {"app.kubernetes.io/component": "x", "team": "a"}}, ["podLabels.app.kubernetes.io/component: "]),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, ["commonLabels.app.kubernetes.io/name: "]),
        ({"extraEnv": [{"name": "A"}, {"name": "A"}]}, ["extraEnv: A is there twice"]),
        (
            {"extraEnv": [{"name": "FINETUNE_TRAINER_IMAGE", "valueFrom": {"configMapKeyRef": {}}}]},
            ["extraEnv: FINETUNE_TRAINER_IMAGE must have a value"],
        ),
        ({"networkPolicy": {"jobs": {"enabled": True}}}, ["networkPolicy.jobs.namespaces: "]),
    ],
    ids=json.dumps,
)
def test_what_cannot_work_is_refused_with_every_reason(values: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(values)
    for problem in problems:
        assert problem in str(refused.value)


def test_globals_of_others_are_left_alone_in_a_larger_chart(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(CHART, whole / "charts/finetune-operator")
    (whole / "Chart.yaml").write_text("{apiVersion: v2, name: whole, version: 1.0.0}")
    values = {"global": {"storageClass": "fast", "imageRegistry": "global.example.com"}}
    with helm_python.Chart.load(whole) as chart:
        rendered = chart.render(values, name="whole", namespace=NAMESPACE)
    [text] = [text for path, text in rendered.items() if path.endswith("/deployment.yaml")]
    [container] = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"global.example.com/finetune-operator:{__version__}"


def test_more_variables_replace_those_of_the_chart() -> None:
    values = {"extraEnv": [{"name": "FINETUNE_LOG_LEVEL", "value": "DEBUG"}, {"name": "TZ", "value": "UTC"}]}
    names = [item["name"] for item in _container(render(values))["env"]]
    assert len(names) == len(set(names))
    assert _environment(render(values)) == _environment(render()) | {"FINETUNE_LOG_LEVEL": "DEBUG", "TZ": "UTC"}


def test_labels_of_pods_and_of_all_objects() -> None:
    objects = render({"podLabels": {"pod": "1"}, "commonLabels": {"all": "true"}})
    assert {item["metadata"]["labels"]["all"] for key, item in objects.items() if key not in CRDS} == {"true"}
    deployment = objects[OPERATOR]["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert deployment["template"]["metadata"]["labels"] == {**selector, "pod": "1", "all": "true"}
    assert selector == render()[OPERATOR]["spec"]["selector"]["matchLabels"]


def test_arguments_volumes_and_objects_of_the_administrator() -> None:
    volume, mount = {"name": "ca", "configMap": {"name": "ca"}}, {"name": "ca", "mountPath": "/ca"}
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n{{ if .Values.replicaCount }}data: {a: b}{{ end }}"
    values = {
        "extraArgs": ["--workers=64"],
        "extraVolumes": [volume],
        "extraVolumeMounts": [mount],
        "extraObjects": [extra, text],
    }
    objects = render(values)
    container = _container(objects)
    assert container["args"] == ["--workers=64"]
    assert container["volumeMounts"] == [*_container(render())["volumeMounts"], mount]
    assert objects[OPERATOR]["spec"]["template"]["spec"]["volumes"][-1] == volume
    assert ("ConfigMap", "", f"{RELEASE}-one") in objects
    assert objects["ConfigMap", "", "two"]["data"] == {"a": "b"}
    assert "args" not in _container(render())


def test_how_pods_are_replaced_and_how_many_may_be_missing() -> None:
    budget = ("PodDisruptionBudget", NAMESPACE, "finetune-operator")
    default = render()
    assert budget not in default
    assert default[OPERATOR]["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    recreate = render({"strategy": {"type": "Recreate"}, "podDisruptionBudget": {"enabled": True}})
    assert recreate[OPERATOR]["spec"]["strategy"] == {"type": "Recreate"}, "Kubernetes refuses rollingUpdate with it"
    assert recreate[budget]["spec"]["maxUnavailable"] == 1
    assert recreate[budget]["spec"]["selector"] == recreate[OPERATOR]["spec"]["selector"]
    least = render({"podDisruptionBudget": {"enabled": True, "minAvailable": "50%"}})[budget]["spec"]
    assert (least["minAvailable"], "maxUnavailable" in least) == ("50%", False)


def test_the_cluster_s_profiles_are_read_where_they_may_be() -> None:
    role = ("ClusterRole", "", "finetune-operator-cluster-profiles")
    alone = render({"watchNamespaces": ["team-a"]})
    assert role in render()
    assert role not in alone
    assert "FINETUNE_CLUSTER_PROFILES" not in {**_environment(render()), **_environment(alone)}
    granted = render({"watchNamespaces": ["team-a"], "profiles": {"cluster": True}})
    assert role in granted
    assert _environment(granted)["FINETUNE_CLUSTER_PROFILES"] == "true"


def test_an_account_that_exists_gets_the_rights() -> None:
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert not [key for key in objects if key[0] == "ServiceAccount"]
    assert objects[OPERATOR]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    bound = [item["subjects"] for key, item in objects.items() if key[0].endswith("RoleBinding")]
    assert len(bound) == 4
    for subjects in bound:
        assert subjects == [{"kind": "ServiceAccount", "name": "mine", "namespace": NAMESPACE}]
    named = render({"serviceAccount": {"name": "mine", "annotations": {"role": "x"}}})
    assert named["ServiceAccount", NAMESPACE, "mine"]["metadata"]["annotations"] == {"role": "x"}


def test_policies_of_the_network() -> None:
    egress = [{"ports": [{"protocol": "TCP", "port": 6443}]}]
    jobs = {"enabled": True, "ports": [443, 9000]}
    objects = render({"watchNamespaces": ["team-a"], "networkPolicy": {"egress": egress, "jobs": jobs}})
    own = objects["NetworkPolicy", NAMESPACE, "finetune-operator"]["spec"]
    assert (own["policyTypes"], own["egress"]) == (["Ingress", "Egress"], egress)
    assert render()["NetworkPolicy", NAMESPACE, "finetune-operator"]["spec"]["policyTypes"] == ["Ingress"]

    policy = objects["NetworkPolicy", "team-a", "finetune-operator-jobs"]["spec"]
    assert policy["podSelector"] == {"matchLabels": {"app.kubernetes.io/managed-by": "finetune-operator"}}
    outside = policy["egress"][-1]
    assert [port["port"] for port in outside["ports"]] == [443, 9000]
    blocks = {peer["ipBlock"]["cidr"]: peer["ipBlock"]["except"] for peer in outside["to"] if "ipBlock" in peer}
    assert blocks == {"0.0.0.0/0": ["169.254.0.0/16"], "::/0": ["fe80::/10", "fd00:ec2::/32"]}
    peers = (peer for rule in policy["egress"] for peer in rule.get("to", ()))
    to_operator = next(peer for peer in peers if "namespaceSelector" in peer)
    assert to_operator["podSelector"] == own["podSelector"]


def test_the_test_of_an_installation_asks_for_one_right_and_is_restricted() -> None:
    objects = objects_of_helm_test({"watchNamespaces": ["team-a"]})
    [role] = [item for key, item in objects.items() if key[0] == "Role"]
    assert role["metadata"]["namespace"] == "team-a"
    assert role["rules"] == [{"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": ["create"]}]
    [pod] = [item for key, item in objects.items() if key[0] == "Pod"]
    [container] = pod["spec"]["containers"]
    [operator] = render()[OPERATOR]["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["securityContext"]) == (operator["image"], operator["securityContext"])
    assert pod["spec"]["securityContext"] == render()[OPERATOR]["spec"]["template"]["spec"]["securityContext"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment["VERIFY_URL"] == _environment(render())["FINETUNE_PROGRESS_URL"]
    selector = render()[OPERATOR]["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= pod["metadata"]["labels"].items(), "the Service must not find the test's pod"


def test_what_the_index_of_charts_shows() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    annotations = chart["annotations"]
    head, _, data = chart["icon"].partition(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data).decode().strip() == (CHART / "icon.svg").read_text().strip()
    [crd] = yaml.safe_load(annotations["artifacthub.io/crds"])
    [example] = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    rendered = render()[CRD]
    [version] = [item["name"] for item in rendered["spec"]["versions"]]
    assert (crd["kind"], crd["version"], crd["name"]) == (
        rendered["spec"]["names"]["kind"],
        version,
        rendered["metadata"]["name"],
    )
    parse_spec(example["spec"])


WARNINGS: list[tuple[dict[str, Any], str]] = [
    ({"crds": {"keep": False}}, "deletes every FineTuneJob"),
    ({"replicaCount": 0}, "No FineTuneJob is served"),
    ({"jobs": {"serviceAccounts": []}}, "No FineTuneJob may run"),
    ({"podDisruptionBudget": {"enabled": True}}, "keep a node from being drained"),
]


@pytest.mark.parametrize(("values", "warning"), WARNINGS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_notes_warn(values: dict[str, Any], warning: str) -> None:
    assert warning in render_text(values)[NOTES]
    assert "WARNING" not in render_text()[NOTES]


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
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["s3"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.2"]},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "priorityClassName": "system-cluster-critical",
    }
    spec = render(values)[OPERATOR]["spec"]["template"]["spec"]
    assert {name: spec[name] for name in values} == values


def test_the_crd_can_be_left_to_others_or_let_go() -> None:
    assert render()[CRD]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not CRDS & set(render({"crds": {"enabled": False}}))
    assert "annotations" not in render({"crds": {"keep": False}})[CRD]["metadata"]


@pytest.mark.cluster
def test_install_upgrade_and_uninstall_keep_the_jobs(control_plane: Server, tmp_path: Path) -> None:
    with helm_python.Config(namespace=NAMESPACE, kubeconfig_path=control_plane.kubeconfig) as config:
        release = config.install(CHART, RELEASE, create_namespace=True)
        control_plane.wait_established()

        notes = render_text()[NOTES]
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


def _environment(objects: dict[Key, Manifest]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in _container(objects)["env"]}
