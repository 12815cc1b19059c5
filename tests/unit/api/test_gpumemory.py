"""The memory of a GPU by what the job says and by the labels that it selects by."""

from typing import Any

import pytest

from finetune_operator.api.gpumemory import gpu_memory_bytes
from finetune_operator.api.resources import Resources
from finetune_operator.api.scheduling import Scheduling

MIB, GIB = 1 << 20, 1 << 30


def memory(resources: dict[str, Any] | None = None, scheduling: dict[str, Any] | None = None) -> int | None:
    return gpu_memory_bytes(Resources.model_validate(resources or {}), Scheduling.model_validate(scheduling or {}))


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("nvidia.com/gpu.memory", "23034", 23034 * MIB),
        ("karpenter.k8s.aws/instance-gpu-memory", "81920", 81920 * MIB),
        ("karpenter.k8s.aws/instance-gpu-name", "a10g", 24 * GIB),
        ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-40GB", 40 * GIB),
        ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB-SHARED", 80 * GIB),
        ("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3", 80 * GIB),
        ("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", 10 * GIB),
        ("nvidia.com/gpu.product", "Tesla-T4", 16 * GIB),
        ("nvidia.com/gpu.product", "NVIDIA-L40S", 48 * GIB),
        ("nvidia.com/gpu.product", "Tesla-V100-SXM2-32GB", 32 * GIB),
        ("cloud.google.com/gke-accelerator", "nvidia-l4", 24 * GIB),
        ("cloud.google.com/gke-accelerator", "nvidia-tesla-a100", 40 * GIB),
        ("cloud.google.com/gke-accelerator", "nvidia-h200-141gb", 141 * GIB),
        ("cloud.google.com/gke-accelerator", "nvidia-gb200", 186 * GIB),
        ("nvidia.com/gpu.product", "Some-New-GPU", None),
        ("nvidia.com/gpu.memory", "much", None),
        ("gpu", "h100", None),
    ],
)
def test_labels(label: str, value: str, expected: int | None) -> None:
    assert memory(scheduling={"nodeSelector": {label: value}}) == expected


def test_the_job_itself_is_believed_first() -> None:
    selector = {"nodeSelector": {"nvidia.com/gpu.memory": "81920"}}
    assert memory({"gpuMemory": "24Gi"}, selector) == 24 * GIB
    assert memory({"gpus": 0, "gpuMemory": "24Gi"}, selector) is None


def test_a_slice_that_is_a_resource_of_its_own() -> None:
    assert memory({"gpuResource": "nvidia.com/mig-2g.20gb"}) == 20 * GIB


def test_affinity_counts_the_largest_that_is_allowed() -> None:
    def required(operator: str, *values: str) -> dict[str, Any]:
        label = {"key": "nvidia.com/gpu.product", "operator": operator, "values": list(values)}
        return {"affinity": {"requiredNodeLabels": [label]}}

    assert memory(scheduling=required("In", "Tesla-T4", "NVIDIA-L40S")) == 48 * GIB
    assert memory(scheduling=required("In", "Tesla-T4", "Some-New-GPU")) is None
    assert memory(scheduling=required("NotIn", "Tesla-T4")) is None
