"""The configuration from the environment: defaults, and every mistake at once."""

from decimal import Decimal

import pytest

from finetune_operator.config import ConfigError, read_config
from finetune_operator.reconcile.config import Platform

REQUIRED = {"FINETUNE_OPERATOR_IMAGE": "op:1", "FINETUNE_TRAINER_IMAGE": "tr:1"}


def test_two_images_are_enough() -> None:
    config = read_config(REQUIRED, fallback_identity="me")
    assert (config.reconcile.preflight_image, config.reconcile.trainer_image) == ("op:1", "tr:1")
    assert config.reconcile.service_accounts == {"default"}
    assert not config.reconcile.allow_remote_code
    assert config.reconcile.platform is Platform.KUBERNETES
    assert config.watch_namespaces == ()
    assert (config.http_port, config.resync_seconds, config.identity) == (8080, 300.0, "me")
    assert config.lease_namespace == "default"


def test_everything_can_be_set() -> None:
    config = read_config(
        {
            **REQUIRED,
            "FINETUNE_PLATFORM": "openshift",
            "FINETUNE_IMAGE_PULL_POLICY": "Never",
            "FINETUNE_IMAGE_PULL_SECRETS": "registry, mirror",
            "FINETUNE_PROGRESS_URL": "http://operator.svc:8080/",
            "FINETUNE_SERVICE_ACCOUNTS": "trainer, default,trainer",
            "FINETUNE_ALLOW_REMOTE_CODE": "true",
            "FINETUNE_HUB_ENDPOINT": "https://hub.example.com/mirror/",
            "FINETUNE_WATCH_NAMESPACES": " a,b ,",
            "FINETUNE_WORKERS": "4",
            "FINETUNE_RESYNC_SECONDS": "60",
            "POD_NAMESPACE": "system",
            "POD_NAME": "operator-0",
            "FINETUNE_LOG_LEVEL": "WARNING",
            "FINETUNE_HTTP_PORT": "9090",
            "FINETUNE_JOB_ENV": "TEAM_*",
            "FINETUNE_JOB_ANNOTATIONS": "example.com/team",
            "FINETUNE_GPU_PRICES": "nvidia.com/gpu=2.50, gpu.product=L4=0.8",
            "FINETUNE_METRICS_PORT": "8081",
            "FINETUNE_METRICS_TLS": "/etc/metrics-tls",
            "FINETUNE_METRICS_PER_JOB": "true",
        },
        fallback_identity="me",
    )
    assert config.reconcile.platform is Platform.OPENSHIFT
    assert config.reconcile.image_pull_policy == "Never"
    assert config.reconcile.image_pull_secrets == ("registry", "mirror")
    assert config.reconcile.progress_url == "http://operator.svc:8080"
    assert config.reconcile.service_accounts == {"trainer", "default"}
    assert config.reconcile.allow_remote_code
    assert "TEAM_NAME" in config.reconcile.environment
    assert "example.com/team" in config.reconcile.annotations
    assert config.reconcile.hub_endpoint == "https://hub.example.com/mirror"
    assert config.reconcile.gpu_prices == {"nvidia.com/gpu": Decimal("2.50"), "gpu.product=L4": Decimal("0.8")}
    assert (config.metrics_port, config.metrics_tls, config.metrics_per_job) == (8081, "/etc/metrics-tls", True)
    assert config.watch_namespaces == ("a", "b")
    assert (config.workers, config.resync_seconds, config.http_port) == (4, 60.0, 9090)
    assert (config.lease_namespace, config.identity, config.log_level) == ("system", "operator-0", "WARNING")


def test_an_empty_list_of_service_accounts_allows_none() -> None:
    config = read_config({**REQUIRED, "FINETUNE_SERVICE_ACCOUNTS": ""}, fallback_identity="me")
    assert config.reconcile.service_accounts == frozenset()


def test_every_mistake_is_reported_at_once_with_its_variable() -> None:
    environment = {
        "FINETUNE_OPERATOR_IMAGE": " ",
        "FINETUNE_IMAGE_PULL_POLICY": "Sometimes",
        "FINETUNE_PROGRESS_URL": "operator:8080",
        "FINETUNE_ALLOW_REMOTE_CODE": "perhaps",
        "FINETUNE_HUB_ENDPOINT": "hub.example.com",
        "FINETUNE_HUB_CA_BUNDLE": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" * 3,
        "FINETUNE_WORKERS": "0",
        "FINETUNE_RESYNC_SECONDS": "1.5",
        "FINETUNE_LOG_LEVEL": "info",
        "FINETUNE_HTTP_PORT": "99999",
        "FINETUNE_METRICS_PORT": "-1",
        "FINETUNE_GPU_PRICES": "nvidia.com/gpu=free",
    }
    with pytest.raises(ConfigError) as caught:
        read_config(environment, fallback_identity="me")
    assert {problem.split(":")[0] for problem in caught.value.problems} == {*environment, "FINETUNE_TRAINER_IMAGE"}
    assert "FINETUNE_WORKERS: must be a whole number from 1 to 256 (found '0')" in caught.value.problems
