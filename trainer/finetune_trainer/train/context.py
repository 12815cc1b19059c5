"""What a run is given besides its recipe: stores, directories, clocks, the reporter and the other processes."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import CACHE_ROOT
from finetune_trainer.contract.termination import Outcome, OutputRecord
from finetune_trainer.progress.reporter import Clock, Reporter
from finetune_trainer.storage.base import OpenStore
from finetune_trainer.storage.retry import RetryPolicy

if TYPE_CHECKING:
    from finetune_trainer.distributed.process_group import ProcessGroup

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The surroundings of a run.

    Attributes:
        work: directory for everything that is written; nothing in it is kept.
        open_store: gives the store of a URI.
        writer: who writes: the pod's UID or any unique token.
        pvc_root: pvc://claim/path is this directory's claim/path.
        cache_root: of model.cache, pvc://claim/path is this directory's path.
        reporter: gets the progress.
        stop: set it to end the run at the next step boundary.
        clock: seconds, for rates and estimates.
        now: the time of day, for the manifest.
        retry: when storage that does not answer is asked again, once the adapter is ready to be uploaded.
        process_group: the other processes of this training; None for one that trains alone.
        machine: this machine, for messages.
        environment: variables of this process, for the tracker's.
        allow_cpu: whether a job that asks for GPUs may train on the CPU where there is none.
    """

    work: Path
    open_store: OpenStore
    writer: str
    pvc_root: Path
    cache_root: Path = Path(CACHE_ROOT)
    reporter: Reporter = field(default_factory=Reporter)
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Clock = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    process_group: "ProcessGroup | None" = None
    machine: str = "this machine"
    environment: Mapping[str, str] = field(default_factory=dict)
    allow_cpu: bool = False

    def raise_if_stopping(self) -> None:
        """Ends the run before the first step when a stop was requested.

        Raises:
            TrainerError: PREEMPTED.
        """
        if self.stop.is_set():
            raise TrainerError(FailureReason.PREEMPTED, "told to stop; stopped before the first step")

    def downloaded(self, count: int) -> None:
        """Notes that `count` more bytes have come; a download of an hour ends here when a stop was requested.

        Raises:
            TrainerError: PREEMPTED.
        """
        self.raise_if_stopping()
        self.reporter.downloaded(count)

    def unless_stopping(self, item: T) -> T:
        """The item itself.

        Raises:
            TrainerError: PREEMPTED.
        """
        self.raise_if_stopping()
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run ended well.

    Attributes:
        outcome: Succeeded, or Reused when the adapter was there already.
        fingerprint: the run's fingerprint.
        output: where the adapter is.
    """

    outcome: Outcome
    fingerprint: str
    output: OutputRecord
