"""How the processes of a training talk: short texts by name before the first step, sums of tensors in every step.

Texts go through torch's TCP store, which process 0 holds; sums through a process group over NCCL or Gloo. Neither is
torch's default group: transformers and accelerate would find that one and think that it is for them to divide the work.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.world import World
from finetune_trainer.runtime.machine_errors import memory_that_ran_out

_C10D: Any = torch.distributed
"""torch's stubs know only half of what is in it."""
JOIN_SECONDS = 1800.0
"""For all processes to come: pods of a job may start at different times."""
SUM_SECONDS = 1800.0
"""For one sum: the slowest process may write and upload a checkpoint before it adds its part."""
_LEAVE_SECONDS = 100.0
"""For the others at a common end: a pod that is told to go has two minutes."""
_TRY_SECONDS = 10.0
_LOOK_SECONDS = 0.05


class Peers:
    """The other processes, for one of them.

    Attributes:
        world: who this process is.
        told: whether the processes have agreed to end after the step that was summed last.
    """

    def __init__(self, world: World, store: Any, leave_if_told: Callable[[], object]) -> None:
        self.world = world
        self.told = False
        self._store = store
        self._leave_if_told = leave_if_told
        self._group: Any = None
        self._device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")

    @classmethod
    def join(cls, world: World, leave_if_told: Callable[[], object]) -> "Peers":
        """Meets the others.

        Args:
            world: who this process is.
            leave_if_told: called while it waits; may raise.

        Raises:
            TrainerError: PEER_FAILED, not all came; INVALID_RECIPE, some have a GPU and some have none.
        """
        peers = cls(world, _store(world, leave_if_told), leave_if_told)
        devices = peers.gather("device", peers._device.type, seconds=JOIN_SECONDS)
        if len(set(devices)) > 1:
            found = sum(device == "cuda" for device in devices)
            message = (
                f"spec.resources.gpus: {world.local_size} a machine: of {world.size} processes only {found} have "
                "found a GPU of their own; ask for as many as there are"
            )
            raise TrainerError(FailureReason.INVALID_RECIPE, message)
        return peers

    @property
    def first(self) -> bool:
        """Whether this is the process that reports, writes and commits."""
        return self.world.rank == 0

    @property
    def first_of_pod(self) -> bool:
        """Whether this is the process that fetches and reads the data."""
        return self.world.local_rank == 0

    def is_told(self) -> bool:
        """Whether the processes have agreed to end."""
        return self.told

    def say(self, name: str, text: str) -> None:
        """Says something to all, once a name."""
        with _connected():
            self._store.set(name, text)

    def hear(self, name: str, seconds: float | None = None) -> str:
        """What one of them says under a name; waits for it.

        Args:
            name: the name.
            seconds: how long to wait; None until it comes.

        Raises:
            TrainerError: PEER_FAILED, it does not come; or this process was told to go.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with _connected():
                if self._store.check([name]):
                    return str(self._store.get(name).decode())
            self._leave_if_told()
            if deadline is not None and time.monotonic() > deadline:
                message = f"not all {self.world.size} processes came within {seconds:.0f} s: no word of {name}"
                raise TrainerError(FailureReason.PEER_FAILED, message)
            time.sleep(_LOOK_SECONDS)

    def gather(self, name: str, text: str, seconds: float | None = None) -> list[str]:
        """What each of them says under a name, by rank; see `hear`."""
        self.say(f"{name}/{self.world.rank}", text)
        return [self.hear(f"{name}/{rank}", seconds) for rank in range(self.world.size)]

    def add_up(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of everybody's tensor, in place; all processes get the same bits.

        Raises:
            TrainerError: PEER_FAILED.
        """
        on_device = tensor.to(self._device)
        with _connected():
            self._connect().allreduce([on_device]).wait()
        return tensor.copy_(on_device) if on_device is not tensor else tensor

    def from_first(self, tensor: torch.Tensor) -> None:
        """Makes the tensor that of process 0, in place.

        Raises:
            TrainerError: PEER_FAILED.
        """
        on_device = tensor.to(self._device)
        with _connected():
            self._connect().broadcast(on_device, 0).wait()
        tensor.copy_(on_device)

    def gather_parts(self, whole: torch.Tensor, own: torch.Tensor) -> Callable[[], None]:
        """Begins to fill `whole` with everybody's part, by rank; call what it returns before the first use.

        Args:
            whole: as many bytes as all parts, on this process's device.
            own: this process's part; it must stay as it is until then.

        Raises:
            TrainerError: PEER_FAILED, here or when it is waited for.
        """
        with _connected():
            work = self._connect()._allgather_base(whole, own)  # noqa: SLF001 (what torch's all_gather_into_tensor calls)

        def wait() -> None:
            with _connected():
                work.wait()

        return wait

    def leave_together(self) -> None:
        """Waits until all have come to the end, so that none is missed while another still saves."""
        self._leave_if_told = lambda: None
        with contextlib.suppress(TrainerError):
            self.gather("left", "", seconds=_LEAVE_SECONDS)

    def _connect(self) -> Any:
        """The process group; made with the first sum, when all have a model."""
        if self._group is None:
            self._group = _group(self._device.type, _C10D.PrefixStore("sums", self._store), self.world)
        return self._group


def _group(device: str, store: Any, world: World) -> Any:
    """The process group, on its own and not as torch's default one."""
    if device == "cuda":
        options = _C10D.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=SUM_SECONDS)  # noqa: SLF001 (torch sets it so itself)
        return _C10D.ProcessGroupNCCL(store, world.rank, world.size, options)
    options = _C10D.ProcessGroupGloo._Options()  # noqa: SLF001
    options._timeout = timedelta(seconds=SUM_SECONDS)  # noqa: SLF001
    # By itself Gloo takes the address of the host's name, which not every machine can resolve.
    options._devices = [_C10D.ProcessGroupGloo.create_device(hostname=_own_address(world))]  # noqa: SLF001
    return _C10D.ProcessGroupGloo(store, world.rank, world.size, options)


def _store(world: World, leave_if_told: Callable[[], object]) -> Any:
    """The store; other processes try again until process 0, or its name, is there."""
    first, deadline = world.rank == 0, time.monotonic() + JOIN_SECONDS
    own = {"master_listen_fd": world.listener} if world.listener is not None else {}
    while True:
        try:
            return _C10D.TCPStore(
                world.host,
                world.port,
                is_master=first,
                timeout=timedelta(seconds=_TRY_SECONDS),
                wait_for_workers=False,
                **own,
            )
        except RuntimeError as error:
            if first or time.monotonic() > deadline:
                message = f"process 0 does not answer at {world.host}:{world.port}: {_first_line(error)}"
                raise TrainerError(FailureReason.PEER_FAILED, message) from error
        leave_if_told()
        time.sleep(1.0)


class _connected(contextlib.AbstractContextManager[None]):  # noqa: N801 (a context manager)
    """Turns what torch raises when another process is gone into the end that it is."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RuntimeError) and memory_that_ran_out(error) is None:
            message = f"another process of this training is gone: {_first_line(error)}"
            raise TrainerError(FailureReason.PEER_FAILED, message) from error


def _own_address(world: World) -> str:
    """This machine's address on the way to process 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((world.host, world.port))
        return str(way.getsockname()[0])


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
