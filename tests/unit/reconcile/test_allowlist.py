"""What a job may add to its pods: names on a list, and what the administrator adds to it."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.reconcile.allowlist import ANNOTATIONS, ENVIRONMENT
from unit.reconcile.world import CONFIG, World, a_job

RUN_CODE = [
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "GETCONF_DIR",
    "CUDA_INJECTION64_PATH",
    "CUDA_INJECTION32_PATH",
    "NCCL_NET_PLUGIN",
    "NCCL_TUNER_PLUGIN",
    "NCCL_PROFILER_PLUGIN",
    "NCCL_CONF_FILE",
    "NCCL_TOPO_FILE",
    "NCCL_GRAPH_FILE",
    "NCCL_ENV_PLUGIN",
    "UCX_MODULE_DIR",
    "FI_PROVIDER_PATH",
    "SSLKEYLOGFILE",
    "MALLOC_CONF",
    "GLIBC_TUNABLES",
    "RES_OPTIONS",
    "HOSTALIASES",
    "BASH_ENV",
    "ENV",
    "PERL5OPT",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_LOGS",
    "CC",
    "CXX",
    "TRITON_PTXAS_PATH",
    "BNB_CUDA_VERSION",
    "CUDA_HOME",
    "CUDA_PATH",
    "MKL_THREADING_LAYER",
    "OMP_TOOL_LIBRARIES",
    "KMP_SETTINGS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "BOTO_CONFIG",
    "GIT_SSH_COMMAND",
    "DEBUGINFOD_URLS",
    "OMP_NUM_THREADS",
]
SWITCH = [
    "container.apparmor.security.beta.kubernetes.io/trainer",
    "seccomp.security.alpha.kubernetes.io/pod",
    "sidecar.istio.io/inject",
    "linkerd.io/inject",
    "vault.hashicorp.com/agent-inject",
    "iam.amazonaws.com/role",
    "k8s.v1.cni.cncf.io/networks",
    "io.kubernetes.cri-o.userns-mode",
    "example.com/anything",
]


@pytest.mark.parametrize("name", RUN_CODE)
def test_no_variable_that_runs_code_is_on_the_list(name: str) -> None:
    assert name not in ENVIRONMENT


@pytest.mark.parametrize("key", SWITCH)
def test_no_annotation_that_switches_a_sandbox_or_mesh_is_on_the_list(key: str) -> None:
    assert key not in ANNOTATIONS


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "NCCL_DEBUG", "NCCL_IB_HCA", "PYTORCH_CUDA_ALLOC_CONF", "TZ"])
def test_what_a_training_needs_is_on_the_list(name: str) -> None:
    assert name in ENVIRONMENT


def scheduled(**scheduling: Any) -> World:
    return World(a_job(preflight={"enabled": False}, scheduling=scheduling))


def test_a_job_with_other_names_is_refused_with_every_one_of_them() -> None:
    world = scheduled(
        env=[{"name": "NCCL_DEBUG"}, {"name": "GCONV_PATH"}], annotations={"linkerd.io/inject": "enabled"}
    )
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "InvalidSpec"
    assert "spec.scheduling.env[1].name" in world.status.failure.message
    assert "linkerd.io/inject" in world.status.failure.message
    assert "NCCL_DEBUG" not in world.status.failure.message
    assert world.made == []


def test_the_administrator_widens_the_lists() -> None:
    world = scheduled(env=[{"name": "TEAM_TOKEN_FILE"}], annotations={"example.com/team": "a"})
    world.config = replace(
        CONFIG,
        environment=CONFIG.environment.plus(["TEAM_*"]),
        annotations=CONFIG.annotations.plus(["example.com/team"]),
    )
    world.step()
    assert world.made == ["support-bot-train-1"]
