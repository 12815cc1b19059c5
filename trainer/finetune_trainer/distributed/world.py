"""Ranks and sizes: the pods of a job, the processes of a pod, and one process among all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import MASTER_ENV, NODE_ENV, NODES_ENV
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import DeviceMap

_WORKER_ENV = "FINETUNE_WORKER"
"""The variable with a worker's `World`. The launcher sets it. It is unset in a process that a pod or user starts."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod of a training: its number of processes, and its number among the job's pods.

    Attributes:
        processes: number of processes of this pod.
        node: number of this pod, from 0.
        nodes: number of pods. Each has the same number of processes.
        host: name or address of pod 0.
        port: port on which the first process of pod 0 listens. 0 means any free port, which works with one pod only.
        gpus: number of GPUs of this pod; None if the recipe does not say it.
    """

    processes: int
    node: int = 0
    nodes: int = 1
    host: str = LOOPBACK
    port: int = 0
    gpus: int | None = None

    @property
    def size(self) -> int:
        """Number of processes of all pods."""
        return self.processes * self.nodes

    @classmethod
    def of(cls, recipe: Recipe, environment: Mapping[str, str]) -> "Pod":
        """Returns the pod that the recipe and the operator's variables describe.

        There is one process per GPU. With a model.deviceMap other than `none`, one process uses all GPUs of the pod.

        Raises:
            TrainerError: INTERNAL. With several pods, a variable is missing or invalid.
        """
        processes = max(1, recipe.machine.gpus or 1) if recipe.model.device_map is DeviceMap.NONE else 1
        nodes = int(environment.get(NODES_ENV) or 1)
        if nodes == 1:
            return cls(processes=processes, gpus=recipe.machine.gpus)
        node, (host, _, port) = environment.get(NODE_ENV, ""), environment.get(MASTER_ENV, "").rpartition(":")
        if not (node.isdecimal() and host and port.isdecimal()):
            message = f"{NODES_ENV} is {nodes}, and {NODE_ENV} or {MASTER_ENV} is not set"
            raise TrainerError(FailureReason.INTERNAL, message)
        return cls(
            processes=processes, node=int(node), nodes=nodes, host=host, port=int(port), gpus=recipe.machine.gpus
        )


def is_first_pod(environment: Mapping[str, str]) -> bool:
    """Returns True in the first pod of a training, and in the only pod."""
    return environment.get(NODE_ENV, "0") == "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One process of a training, with its rank and the number of processes.

    Attributes:
        rank: number of the process, from 0. Rank 0 reports, writes and commits.
        size: number of processes of all pods.
        local_rank: number of the process in its pod, from 0. Local rank 0 downloads and reads the data.
        local_size: number of processes of its pod.
        host: name or address at which rank 0 listens.
        port: port at which rank 0 listens.
        listener: file descriptor of the listening socket in rank 0; None in the others.
        progress: file descriptor of the pipe to the launcher, for progress records.
        quiet: True when the process logs errors only, because the launcher shows the progress.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int
    listener: int | None = None
    progress: int
    quiet: bool = False

    @property
    def node(self) -> int:
        """Number of the process's pod, from 0."""
        return self.rank // self.local_size

    def variables(self) -> dict[str, str]:
        """Returns the environment variable that passes this `World` to the process."""
        return {_WORKER_ENV: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "World | None":
        """Reads the `World` that `variables` wrote. Returns None in a process that the launcher has not started."""
        text = environment.get(_WORKER_ENV)
        return cls(**json.loads(text)) if text else None
