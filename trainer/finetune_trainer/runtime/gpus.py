"""The GPUs that this process finds, and why they cannot be used.

torch answers "no" for a GPU that it cannot use, and a training would go on for weeks on the CPU. A missing library, an
old driver and a GPU without kernels look alike there. So this module asks each of them.
"""

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.runtime.log import event

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_LEAST_DRIVER = {12: 525, 13: 580}
"""Oldest major version of the Linux driver for each major version of CUDA (CUDA Toolkit release notes, "CUDA Toolkit
and Corresponding Driver Versions": minor version compatibility)."""

Capability = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that torch can initialise: its name and compute capability."""

    name: str
    capability: Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGpus:
    """What a process finds.

    Attributes:
        gpus: the visible GPUs, in torch's order.
        error: torch's words about why CUDA cannot be used; None if it can.
        cuda: version of CUDA that torch is built with; None for a torch without CUDA.
        architectures: the GPUs for which torch has kernels, in the compiler's words: sm_90, compute_120.
        driver: version of the kernel's NVIDIA driver; None if the machine has none.
        library: whether the driver's library libcuda.so.1 can be loaded.
        visible: value of CUDA_VISIBLE_DEVICES; None if it is not set.
    """

    gpus: tuple[Gpu, ...] = ()
    error: str | None = None
    cuda: str | None
    architectures: tuple[str, ...]
    driver: str | None
    library: bool
    visible: str | None = None


def find_gpus(environment: Mapping[str, str] = os.environ) -> FoundGpus:
    """Initialises CUDA in this process, and returns what it finds. It imports torch."""
    import torch

    gpus: tuple[Gpu, ...] = ()
    error: str | None = None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        gpus = tuple(
            Gpu(name=torch.cuda.get_device_name(number), capability=torch.cuda.get_device_capability(number))
            for number in range(torch.cuda.device_count())
        )
    except (RuntimeError, AssertionError) as caught:  # AssertionError: a torch without CUDA
        error = str(caught).strip().split("\n", 1)[0]
    return FoundGpus(
        gpus=gpus,
        error=error,
        cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        driver=driver_version(_DRIVER_FILE),
        library=_can_load("libcuda.so.1"),
        visible=environment.get("CUDA_VISIBLE_DEVICES"),
    )


def require_gpus(asked: int | None, count: int, where: str, *, allow_cpu: bool) -> None:
    """Requires that this process can use the GPUs that the job asks for. Logs what they are.

    Args:
        asked: `resources.gpus`. Nothing is required for 0 or None.
        count: number of GPUs of this process.
        where: the machine, for the message.
        allow_cpu: whether to go on without a usable GPU.

    Raises:
        TrainerError: GPU_UNAVAILABLE or GPU_NOT_SUPPORTED.
    """
    if not asked:
        return
    found = find_gpus()
    if not found.gpus and allow_cpu:
        return
    if (problem := problem_of(found, asked, count, where)) is not None:
        raise problem
    event(
        "gpus",
        names=", ".join(gpu.name for gpu in found.gpus),
        capability=", ".join(sorted({_dotted(gpu.capability) for gpu in found.gpus})),
        driver=found.driver,
        cuda=found.cuda,
    )


def problem_of(found: FoundGpus, asked: int, count: int, where: str) -> TrainerError | None:
    """Why a process cannot use its GPUs; None if it can. See `require_gpus`."""
    if not found.gpus:
        message = f"spec.resources.gpus: {asked}, but no GPU can be used on {where}: {'; '.join(_causes(found))}"
        return TrainerError(FailureReason.GPU_UNAVAILABLE, message)
    for gpu in found.gpus:
        if not has_kernels(gpu.capability, found.architectures):
            return TrainerError(
                FailureReason.GPU_NOT_SUPPORTED,
                f"the {gpu.name} on {where} has compute capability {_dotted(gpu.capability)}, and this trainer's torch "
                f"has kernels for {', '.join(map(_readable, found.architectures))} only",
            )
    if len(found.gpus) < count:
        return TrainerError(
            FailureReason.GPU_UNAVAILABLE,
            f"spec.resources.gpus: {asked}, but only {len(found.gpus)} can be used on {where}",
        )
    return None


def has_kernels(capability: Capability, architectures: tuple[str, ...]) -> bool:
    """Whether torch's kernels run on a GPU of this compute capability.

    Machine code (sm_86) runs on its own major version from its minor version on, intermediate code (compute_90) on
    everything newer (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility"). Code for exactly one
    architecture ends in a letter (sm_90a).
    """
    for name in architectures:
        kind, _, number = name.partition("_")
        if not number.isdecimal():
            if number[:-1].isdecimal() and divmod(int(number[:-1]), 10) == capability:
                return True
            continue
        built = divmod(int(number), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return False


def driver_version(file: Path) -> str | None:
    """The version of the NVIDIA driver from the kernel's own file; None if there is no driver."""
    try:
        said = _VERSION.search(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return said[1] if said else None


def _causes(found: FoundGpus) -> list[str]:
    """What is wrong, the likeliest cause first, and what torch says last."""
    causes = []
    if found.visible is not None and (not found.visible.strip() or found.visible.startswith("-")):
        causes.append("CUDA_VISIBLE_DEVICES hides it, or there are fewer GPUs than that")
    elif found.cuda is None:
        causes.append("this torch is built without CUDA")
    else:
        causes.append(_about_driver(found.driver, found.cuda, library=found.library))
    if found.error is not None:
        causes.append(f"torch says: {found.error}")
    return causes


def _about_driver(driver: str | None, cuda: str, *, library: bool) -> str:
    least = _LEAST_DRIVER.get(int(cuda.split(".", 1)[0]))
    needed = f"CUDA {cuda} needs {least} or later" if least else f"the trainer has CUDA {cuda}"
    if driver is None:
        return f"no NVIDIA driver is loaded; {needed}"
    if least is not None and int(driver.split(".", 1)[0]) < least:
        return f"the NVIDIA driver {driver} is too old; {needed}, or a trainer image with an earlier CUDA"
    if not library:
        return (
            f"the driver {driver} is there, but its library libcuda.so.1 is not in the container: the "
            "container runtime did not add it (scheduling.runtimeClassName may be missing)"
        )
    return f"the NVIDIA driver is {driver}; {needed}"


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _readable(architecture: str) -> str:
    """sm_75 as 7.5, compute_120 as 12.0 and newer."""
    kind, _, number = architecture.partition("_")
    digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
    dotted = f"{digits[:-1]}.{digits[-1:]}"
    return f"{dotted} and newer" if kind == "compute" else dotted


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
