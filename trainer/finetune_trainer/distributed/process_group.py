"""Communication between the processes of a training: short texts before the first step, collectives in every step.

Texts go through torch's TCPStore, whose server is process 0. Collectives go through NCCL or Gloo. The backend is not
torch's default process group: transformers and accelerate would find a default group and divide the work themselves.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.distributed.world import World
from finetune_trainer.runtime.machine_errors import out_of_memory_reason

_C10D: Any = torch.distributed
"""The module without types: torch's stubs lack many of its names."""
RENDEZVOUS_SECONDS = 1800.0
"""Time limit until all processes have joined. The pods of a job may start at different times."""
COLLECTIVE_SECONDS = 1800.0
"""Time limit of one collective. One process may write and upload a checkpoint while the others wait in it."""
_BARRIER_SECONDS = 100.0
"""Time limit of the final barrier. It is below the two minutes that a pod has after SIGTERM."""
_CONNECT_SECONDS = 10.0
_POLL_SECONDS = 0.05


class ProcessGroup:
    """The connected processes of a training. It replaces torch's default process group, which stays unset.

    Attributes:
        world: rank and size.
        stop_agreed: True when the processes have agreed to end after the step whose gradients were summed last.
    """

    def __init__(
        self, world: World, store: Any, raise_if_stopping: Callable[[], object], *, overlapping: bool = False
    ) -> None:
        self.world = world
        self._overlapping = overlapping
        self.stop_agreed = False
        self._store = store
        self._raise_if_stopping = raise_if_stopping
        self._backend: Any = None
        self._device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")

    @classmethod
    def join(
        cls, world: World, raise_if_stopping: Callable[[], object], *, overlapping: bool = False
    ) -> "ProcessGroup":
        """Connects this process to the others. Returns when all have joined.

        Args:
            world: rank and size.
            raise_if_stopping: called during the wait. Raises when this process must stop.
            overlapping: whether collectives run beside the computation (sharding). See `nccl_settings`.

        Raises:
            TrainerError: PEER_FAILED, not all processes joined in time. INVALID_SPEC, some processes have a GPU and
                some have none.
            Exception: any exception of `raise_if_stopping`.
        """
        process_group = cls(world, _store(world, raise_if_stopping), raise_if_stopping, overlapping=overlapping)
        devices = process_group.all_gather_text("device", process_group._device.type, seconds=RENDEZVOUS_SECONDS)
        if len(set(devices)) > 1:
            gpus = sum(device == "cuda" for device in devices)
            message = (
                f"spec.resources.gpus: {world.local_size} per pod, but only {gpus} of {world.size} processes found a "
                "GPU: set it to the number of GPUs of each node"
            )
            raise TrainerError(FailureReason.INVALID_SPEC, message)
        return process_group

    @property
    def is_main_process(self) -> bool:
        """True for rank 0, the process that reports, writes and commits."""
        return self.world.rank == 0

    @property
    def is_local_main_process(self) -> bool:
        """True for local rank 0, the process that downloads and reads the data for its pod."""
        return self.world.local_rank == 0

    def has_agreed_to_stop(self) -> bool:
        """Returns `stop_agreed`."""
        return self.stop_agreed

    def publish(self, name: str, text: str) -> None:
        """Publishes a text to all processes. A name is used once.

        Raises:
            TrainerError: PEER_FAILED.
        """
        with _peer_failures():
            self._store.set(name, text)

    def wait_for(self, name: str, seconds: float | None = None) -> str:
        """Waits for the text that a process publishes under a name. Returns the text.

        Args:
            name: the name.
            seconds: time limit; None means no limit.

        Raises:
            TrainerError: PEER_FAILED, the text did not come in time, or process 0 has ended.
            Exception: any exception of `raise_if_stopping`, when this process must stop.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with _peer_failures():
                if self._store.check([name]):
                    return str(self._store.get(name).decode())
            self._raise_if_stopping()
            if deadline is not None and time.monotonic() > deadline:
                message = f"not all {self.world.size} processes joined within {seconds:.0f} s: {name} did not come"
                raise TrainerError(FailureReason.PEER_FAILED, message)
            time.sleep(_POLL_SECONDS)

    def all_gather_text(self, name: str, text: str, seconds: float | None = None) -> list[str]:
        """Publishes this process's text. Returns the texts of all processes, ordered by rank. See `wait_for`."""
        self.publish(f"{name}/{self.world.rank}", text)
        return [self.wait_for(f"{name}/{rank}", seconds) for rank in range(self.world.size)]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums a tensor over all processes, in place. Returns the tensor, which is equal bit by bit in all processes.

        Raises:
            TrainerError: PEER_FAILED.
        """
        on_device = tensor.to(self._device)
        with _peer_failures():
            self._connected_backend().allreduce([on_device]).wait()
        return tensor.copy_(on_device) if on_device is not tensor else tensor

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Replaces the tensor's values by those of process 0, in place.

        Raises:
            TrainerError: PEER_FAILED.
        """
        on_device = tensor.to(self._device)
        with _peer_failures():
            self._connected_backend().broadcast(on_device, 0).wait()
        tensor.copy_(on_device)

    def all_gather_into_tensor(self, whole: torch.Tensor, own: torch.Tensor) -> Callable[[], None]:
        """Starts to fill `whole` with the parts of all processes, ordered by rank.

        Returns a function that waits for the end. Call it before the first use of `whole`.

        Args:
            whole: a tensor as large as all parts together, on this process's device.
            own: this process's part. It must not change until the wait has ended.

        Raises:
            TrainerError: PEER_FAILED. The returned function raises it too.
        """
        with _peer_failures():
            work = self._connected_backend()._allgather_base(whole, own)  # noqa: SLF001 (what torch's all_gather_into_tensor calls)

        def wait() -> None:
            with _peer_failures():
                work.wait()

        return wait

    def barrier(self) -> None:
        """Waits until all processes have reached their end, so that none exits while another still saves.

        A process that failed, or does not come within 100 s, is no error.
        """
        self._raise_if_stopping = lambda: None
        with contextlib.suppress(TrainerError):
            self.all_gather_text("left", "", seconds=_BARRIER_SECONDS)

    def _connected_backend(self) -> Any:
        """Returns torch's backend. The first collective creates it, when all processes have loaded the model."""
        if self._backend is None:
            for name, value in nccl_settings(overlapping=self._overlapping).items():
                os.environ.setdefault(name, value)
            self._backend = _backend(self._device.type, _C10D.PrefixStore("sums", self._store), self.world)
        return self._backend


def nccl_settings(*, overlapping: bool) -> dict[str, str]:
    """Variables that torch reads when it creates an NCCL backend; the job's own values come first.

    By default `wait` returns before a collective has ended, and torch's watchdog thread aborts the process after an
    error (torch:ProcessGroupNCCL.hpp). The launcher then reads the reason from the log. With TORCH_NCCL_BLOCKING_WAIT
    `wait` raises the error, and PEER_FAILED is said here. It keeps the host waiting, which costs nothing once a step,
    but too much where every layer's weights are collected beside the computation.

    Args:
        overlapping: whether collectives run beside the computation.
    """
    return {} if overlapping else {"TORCH_NCCL_BLOCKING_WAIT": "1"}


def _backend(device: str, store: Any, world: World) -> Any:
    """Creates torch's backend without registering it as the default process group."""
    if device == "cuda":
        options = _C10D.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=COLLECTIVE_SECONDS)  # noqa: SLF001 (torch sets it so itself)
        return _C10D.ProcessGroupNCCL(store, world.rank, world.size, options)
    options = _C10D.ProcessGroupGloo._Options()  # noqa: SLF001
    options._timeout = timedelta(seconds=COLLECTIVE_SECONDS)  # noqa: SLF001
    # By default Gloo resolves the host's name, which not every machine can resolve.
    options._devices = [_C10D.ProcessGroupGloo.create_device(hostname=_own_address(world))]  # noqa: SLF001
    return _C10D.ProcessGroupGloo(store, world.rank, world.size, options)


def _store(world: World, raise_if_stopping: Callable[[], object]) -> Any:
    """Connects to torch's TCPStore. Process 0 is its server. The others retry until its name resolves and it answers.

    Raises:
        TrainerError: PEER_FAILED, process 0 did not answer in time.
        Exception: any exception of `raise_if_stopping`.
    """
    first, deadline = world.rank == 0, time.monotonic() + RENDEZVOUS_SECONDS
    own = {"master_listen_fd": world.listener} if world.listener is not None else {}
    while True:
        try:
            return _C10D.TCPStore(
                world.host,
                world.port,
                is_master=first,
                timeout=timedelta(seconds=_CONNECT_SECONDS),
                wait_for_workers=False,
                **own,
            )
        except RuntimeError as error:
            if first or time.monotonic() > deadline:
                message = f"process 0 does not answer at {world.host}:{world.port}: {_first_line(error)}"
                raise TrainerError(FailureReason.PEER_FAILED, message) from error
        raise_if_stopping()
        time.sleep(1.0)


class _peer_failures(contextlib.AbstractContextManager[None]):  # noqa: N801 (a context manager)
    """Raises PEER_FAILED in place of torch's RuntimeError. torch raises one when another process has ended.

    A RuntimeError about full memory is raised unchanged.
    """

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, RuntimeError) and out_of_memory_reason(error) is None:
            message = f"another process of this training has ended: {_first_line(error)}"
            raise TrainerError(FailureReason.PEER_FAILED, message) from error


def _own_address(world: World) -> str:
    """Returns the address of this machine from which packets to process 0 are sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((world.host, world.port))
        return str(way.getsockname()[0])


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
