"""Which GPUs are known to be too old before a pod asks for one."""

from typing import Any

import pytest

from finetune_operator.api.gpu_capability import unsupported_gpu
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import Scheduling

PRODUCT = "nvidia.com/gpu.product"
GKE = "cloud.google.com/gke-accelerator"
AWS = "karpenter.k8s.aws/instance-gpu-name"
MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"


def problem(selector: dict[str, str] | None = None, gpus: int = 1, **scheduling: Any) -> str | None:
    """The problem of a job with this node selector."""
    return unsupported_gpu(
        Resources.model_validate({"gpus": gpus}),
        Scheduling.model_validate({"nodeSelector": selector, **scheduling}),
    )


@pytest.mark.parametrize(
    ("label", "value", "capability"),
    [
        (PRODUCT, "Tesla-V100-SXM2-16GB", "7.0"),
        (PRODUCT, "Tesla-P100-PCIE-16GB", "6.0"),
        (PRODUCT, "Quadro-P5000", "6.1"),
        (GKE, "nvidia-tesla-p4", "6.1"),
        (GKE, "nvidia-tesla-k80", "3.7"),
        (AWS, "v100", "7.0"),
        (AWS, "m60", "5.2"),
        ("nvidia.com/gpu.family", "volta", "7.2"),
        (MAJOR, "6", "6.9"),
    ],
)
def test_a_gpu_without_kernels_is_refused_by_its_label(label: str, value: str, capability: str) -> None:
    said = problem({label: value})
    assert said == (
        f"the node label {label}: {value} is a GPU of compute capability {capability}, and the trainer has kernels "
        "from 7.5 on"
    )
    assert problem({label: value}, gpus=0) is None


@pytest.mark.parametrize(
    ("label", "value"),
    [
        (PRODUCT, "Tesla-T4"),
        (PRODUCT, "NVIDIA-A100-SXM4-80GB"),
        (PRODUCT, "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"),
        (PRODUCT, "NVIDIA-RTX-A4000"),
        (PRODUCT, "NVIDIA-GeForce-RTX-4090"),
        (GKE, "nvidia-l4"),
        (AWS, "t4g"),
        ("nvidia.com/gpu.family", "turing"),
        ("nvidia.com/gpu.family", "somethingnew"),
        (MAJOR, "7"),
        (MAJOR, "10"),
        (MAJOR, "x"),
        ("pool", "v100"),
    ],
)
def test_other_gpus_are_not(label: str, value: str) -> None:
    assert problem({label: value}) is None


def test_major_and_minor_version_count_together() -> None:
    assert problem({MAJOR: "7", MINOR: "0"}) is not None
    assert problem({MAJOR: "7", MINOR: "5"}) is None


def test_the_newest_allowed_gpu_counts() -> None:
    def of(*values: str) -> str | None:
        labels = [{"key": PRODUCT, "operator": "In", "values": list(values)}]
        return problem(affinity={"requiredNodeLabels": labels})

    assert of("Tesla-V100-SXM2-16GB", "Tesla-T4") is None
    assert of("Tesla-V100-SXM2-16GB", "Tesla-P4") is not None
