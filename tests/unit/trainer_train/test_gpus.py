"""What is said about a GPU that cannot be used."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.runtime.gpus import FoundGpus, Gpu, driver_version, has_kernels, problem_of

WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""torch 2.15's own list."""
T4, V100 = Gpu(name="Tesla T4", capability=(7, 5)), Gpu(name="Tesla V100-SXM2-16GB", capability=(7, 0))
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020)."


def found(*gpus: Gpu, **more: Any) -> FoundGpus:
    """What a process finds on a machine with a driver that is new enough, but for `more`."""
    facts: dict[str, Any] = {"cuda": "13.2", "architectures": WHEEL, "driver": "580.95.05", "library": True}
    return FoundGpus(gpus=gpus, **{**facts, **more})


def said(machine: FoundGpus, asked: int = 1, count: int = 1) -> tuple[FailureReason, str]:
    """The failure on that machine."""
    problem = problem_of(machine, asked, count, "node gpu-3")
    assert problem is not None
    return problem.reason, problem.message


def test_a_gpu_that_works_is_no_problem() -> None:
    assert problem_of(found(T4), 1, 1, "node gpu-3") is None
    assert problem_of(found(T4, T4), 2, 2, "node gpu-3") is None


HIDDEN = "CUDA_VISIBLE_DEVICES hides it, or there are fewer GPUs than that"
NOT_MOUNTED = (
    "the driver 580.95.05 is there, but its library libcuda.so.1 is not in the container: the container runtime did "
    "not add it (scheduling.runtimeClassName may be missing)"
)


def too_old(driver: str, needed: str) -> str:
    """What is said about a driver."""
    return f"the NVIDIA driver {driver} is too old; {needed} or later, or a trainer image with an earlier CUDA"


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (
            {"driver": "535.161.08", "error": TOO_OLD},
            f"{too_old('535.161.08', 'CUDA 13.2 needs 580')}; torch says: {TOO_OLD}",
        ),
        ({"driver": None, "library": False}, "no NVIDIA driver is loaded; CUDA 13.2 needs 580 or later"),
        ({"library": False}, NOT_MOUNTED),
        (
            {"error": "CUDA error: unknown error"},
            "the NVIDIA driver is 580.95.05; CUDA 13.2 needs 580 or later; torch says: CUDA error: unknown error",
        ),
        ({"visible": ""}, HIDDEN),
        ({"visible": "-1"}, HIDDEN),
        ({"cuda": None}, "this torch is built without CUDA"),
        ({"cuda": "12.8", "driver": "470.82.01"}, too_old("470.82.01", "CUDA 12.8 needs 525")),
        ({"cuda": "14.1"}, "the NVIDIA driver is 580.95.05; the trainer has CUDA 14.1"),
    ],
)
def test_the_cause_is_named(facts: dict[str, Any], cause: str) -> None:
    reason, message = said(found(**facts))
    assert reason is FailureReason.GPU_UNAVAILABLE
    assert message == f"spec.resources.gpus: 1, but no GPU can be used on node gpu-3: {cause}"


def test_a_node_with_fewer_gpus_is_named() -> None:
    assert said(found(T4, T4), asked=4, count=4) == (
        FailureReason.GPU_UNAVAILABLE, "spec.resources.gpus: 4, but only 2 can be used on node gpu-3"
    )  # fmt: skip


def test_a_gpu_without_kernels_is_not_tried() -> None:
    reason, message = said(found(V100))
    assert reason is FailureReason.GPU_NOT_SUPPORTED
    assert message == (
        "the Tesla V100-SXM2-16GB on node gpu-3 has compute capability 7.0, and this trainer's torch has kernels for "
        "7.5, 8.0, 8.6, 9.0, 10.0, 12.0 only"
    )


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), WHEEL, True),
        ((8, 9), WHEEL, True),  # L4: the code for 8.6
        ((12, 1), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((6, 0), WHEEL, False),
        ((11, 0), WHEEL, False),
        ((13, 0), WHEEL, False),
        ((13, 0), (*WHEEL, "compute_120"), True),
        ((7, 0), ("compute_75",), False),
        ((9, 0), ("sm_90a",), True),
        ((10, 0), ("sm_90a",), False),
        ((8, 0), ("sm_86",), False),
    ],
)
def test_which_gpus_have_kernels(capability: tuple[int, int], architectures: tuple[str, ...], runs: bool) -> None:
    assert has_kernels(capability, architectures) is runs


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 17 22:55:48 UTC 2024\nGCC version:  x\n",
         "535.161.08"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22)  Tue\n",
         "580.95.05"),
        ("something else", None),
    ],
)  # fmt: skip
def test_the_drivers_version_is_the_kernels(tmp_path: Path, text: str, version: str | None) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_version(tmp_path / "version") == version
    assert driver_version(tmp_path / "none") is None
