"""Who trains together: the processes of this pod, the pods of the job, and this process among them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import MASTER_ENV, NODE_ENV, NODES_ENV
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import DeviceMap

_WORKER_ENV = "FINETUNE_WORKER"
"""What the launcher tells a process of its own; unset in the process that a pod or a user starts."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The processes of one pod, and its place among the job's pods.

    Attributes:
        processes: how many this pod starts.
        node: number of this pod, from 0.
        nodes: pods in all, each with as many processes.
        host: name or address of pod 0.
        port: where its first process listens; 0 for any free port, in a pod that is alone.
    """

    processes: int
    node: int = 0
    nodes: int = 1
    host: str = LOOPBACK
    port: int = 0

    @property
    def size(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes

    @classmethod
    def of(cls, recipe: Recipe, environment: Mapping[str, str]) -> "Pod":
        """One process a GPU, unless one process spreads the model over them; the rest is what the operator has set.

        Raises:
            TrainerError: INTERNAL, the variables of several pods are incomplete.
        """
        processes = max(1, recipe.machine.gpus or 1) if recipe.model.device_map is DeviceMap.NONE else 1
        nodes = int(environment.get(NODES_ENV) or 1)
        if nodes == 1:
            return cls(processes=processes)
        node, (host, _, port) = environment.get(NODE_ENV, ""), environment.get(MASTER_ENV, "").rpartition(":")
        if not (node.isdecimal() and host and port.isdecimal()):
            message = f"{NODES_ENV} is {nodes}, and {NODE_ENV} or {MASTER_ENV} is not set"
            raise TrainerError(FailureReason.INTERNAL, message)
        return cls(processes=processes, node=int(node), nodes=nodes, host=host, port=int(port))


def is_first_pod(environment: Mapping[str, str]) -> bool:
    """Whether this pod is the first of those that train together, or the only one."""
    return environment.get(NODE_ENV, "0") == "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One process among all.

    Attributes:
        rank: its number, from 0; number 0 reports, writes and commits.
        size: processes in all.
        local_rank: its number in its pod, from 0; number 0 fetches and reads the data.
        local_size: processes of its pod.
        host, port: where process 0 listens.
        listener: file descriptor of the listening socket, in process 0.
        progress: file descriptor of the pipe to the launcher, for progress records.
        quiet: whether it logs nothing but errors, since the launcher shows the progress.
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
        """Number of its pod, from 0."""
        return self.rank // self.local_size

    def variables(self) -> dict[str, str]:
        """The environment variables that tell the process."""
        return {_WORKER_ENV: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "World | None":
        """What `variables` has made; None in a process that the launcher has not started."""
        text = environment.get(_WORKER_ENV)
        return cls(**json.loads(text)) if text else None
