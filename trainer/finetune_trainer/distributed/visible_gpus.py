"""Which GPUs each process of a pod sees: its own ones only.

CUDA_VISIBLE_DEVICES is the one way to hide the others from torch, TRL and NCCL alike. A pod may see more GPUs than it
asked for, on a workstation or where the container runtime does not isolate them.
"""

from collections.abc import Iterator, Mapping

from finetune_trainer.distributed.world import Pod

VISIBLE_ENV = "CUDA_VISIBLE_DEVICES"
_GIVEN_ENV = "NVIDIA_VISIBLE_DEVICES"
"""NVIDIA's device plugin names the container's GPUs here: UUIDs, or words and numbers that mean nothing inside."""


def visible_gpus(pod: Pod, local_rank: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variable that shows a process its own GPUs. It is empty if the number of GPUs is not known.

    Args:
        pod: the pod. A pod with one process gives it all GPUs, other pods one to each process.
        local_rank: number of the process in its pod.
        environment: the pod's variables. GPUs that they hide stay hidden.
    """
    if pod.gpus is None:
        return {}
    if pod.gpus == 0:
        return {VISIBLE_ENV: ""}
    every = _devices(environment, pod.gpus)
    own = every[: pod.gpus] if pod.processes == 1 else every[local_rank : local_rank + 1]
    return {VISIBLE_ENV: ",".join(own)}


def _devices(environment: Mapping[str, str], count: int) -> list[str]:
    """The pod's GPUs, in CUDA's words: numbers, or UUIDs of GPUs and of MIG slices."""
    if (visible := environment.get(VISIBLE_ENV)) is not None:
        return list(_until_invalid(visible))
    given = environment.get(_GIVEN_ENV, "").split(",")
    if all(name.startswith(("GPU-", "MIG-")) for name in given):
        return given
    return [str(number) for number in range(count)]


def _until_invalid(visible: str) -> Iterator[str]:
    """The names up to the first that is none. CUDA ignores all names after it, so `-1` hides every GPU."""
    for name in visible.split(","):
        if not name.strip() or name.strip().startswith("-"):
            return
        yield name.strip()
