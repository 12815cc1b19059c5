"""Progress reports: what the run is doing, for the operator and for the terminal of a local run.

A report never disturbs the training: sinks are called on the training thread and return at once, the network is
another thread's, and a server that does not answer loses reports and nothing else.
"""

import contextlib
import ssl
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune_trainer.contract.layout import PROGRESS_CA_ENV, PROGRESS_TOKEN_ENV, PROGRESS_URL_ENV
from finetune_trainer.contract.progress import Metric, Progress, ProgressReport, Stage, TrainerStatus

Sink = Callable[[Progress], None]
"""Takes a record; must return at once and never raise."""

Clock = Callable[[], float]
"""Seconds from any fixed moment, never going back, such as `time.monotonic`."""

INTERVAL_SECONDS = 5.0
"""Least time between two posts of one stage; the operator writes a status at most every 10 s anyway."""
_TIMEOUT_SECONDS = 5.0
_RECENT_STEPS = 20


class Reporter:
    """Holds the latest record and hands every change to the sinks; any thread may call it."""

    def __init__(self, sinks: Sequence[Sink] = (), clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock
        self._changing = threading.RLock()
        self.progress = Progress(heartbeat_time=clock())
        self._stages: list[tuple[Stage, datetime]] = [(self.progress.stage, clock())]

    def stage(self, stage: Stage) -> None:
        """Enters a stage."""
        self.update(stage=stage)

    def downloaded(self, count: int) -> None:
        """Notes that `count` more bytes have come."""
        with self._changing:
            self.update(bytes_downloaded=(self.progress.bytes_downloaded or 0) + count)

    def uploaded(self, count: int) -> None:
        """Notes that `count` more bytes have gone."""
        with self._changing:
            self.update(bytes_uploaded=(self.progress.bytes_uploaded or 0) + count)

    def waiting(self, message: str | None) -> None:
        """Notes what is waited for, None for nothing any more."""
        self.update(waiting_for=message)

    def update(self, **fields: object) -> None:
        """Changes fields of the record; numbers that JSON has no word for become absent."""
        with self._changing:
            now = self._clock()
            self.progress = Progress.model_validate({**self.progress.model_dump(), **fields, "heartbeat_time": now})
            if self.progress.stage is not self._stages[-1][0]:
                self._stages.append((self.progress.stage, now))
            for sink in self._sinks:
                sink(self.progress)

    def take(self, progress: Progress) -> None:
        """Takes the record of another process that does the work."""
        with self._changing:
            self.progress = progress
            for sink in self._sinks:
                sink(progress)

    def stage_seconds(self) -> dict[str, float]:
        """Seconds in each stage so far, in the order they were first entered."""
        with self._changing:
            ends = [*(began for _, began in self._stages[1:]), self._clock()]
            found: dict[str, float] = {}
            for (stage, began), end in zip(self._stages, ends, strict=True):
                found[stage] = found.get(stage, 0.0) + (end - began).total_seconds()
            return found


class Pace:
    """Rate of the recent steps: the first ones are slow and must not colour the estimate for hours."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_RECENT_STEPS + 1)

    def step(self, now: float, step: int, tokens: int) -> None:
        """Notes that `step` steps and `tokens` tokens in all were done at `now`, in seconds."""
        self._marks.append((now, step, tokens))

    def tokens_per_second(self) -> float | None:
        """Tokens per second over the recent steps."""
        elapsed, _, tokens = self._recent()
        return tokens / elapsed if elapsed > 0 else None

    def eta_seconds(self, total_steps: int) -> int | None:
        """Seconds until step `total_steps`."""
        elapsed, steps, _ = self._recent()
        if not self._marks or elapsed <= 0 or steps <= 0:
            return None
        return round(elapsed / steps * max(0, total_steps - self._marks[-1][1]))

    def _recent(self) -> tuple[float, int, int]:
        if not self._marks:
            return 0.0, 0, 0
        (start, first_step, first_tokens), (end, last_step, last_tokens) = self._marks[0], self._marks[-1]
        return end - start, last_step - first_step, last_tokens - first_tokens


class HttpSink:
    """Posts the latest record: at once when the stage changes, else every `interval` seconds.

    The token file is read for every post, because the kubelet rotates it.
    """

    def __init__(
        self,
        url: str,
        token: Path | None,
        ca_certificates: Path | None = None,
        *,
        interval: float = INTERVAL_SECONDS,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._url = url
        self._token = token
        self._ca_certificates = ca_certificates
        self._interval = interval
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._latest: Progress | None = None
        self._posted_stage: Stage | None = None
        self._closing = False
        # A daemon: a server that hangs must not keep the pod alive.
        self._thread = threading.Thread(target=self._post_all, name="progress", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "HttpSink | None":
        """The sink that the operator set up for this pod, or None outside of one."""
        url = environment.get(PROGRESS_URL_ENV)
        if not url:
            return None
        token, certificates = environment.get(PROGRESS_TOKEN_ENV), environment.get(PROGRESS_CA_ENV)
        return cls(url, Path(token) if token else None, Path(certificates) if certificates else None)

    def __call__(self, progress: Progress) -> None:
        """Takes a record; an older one that was not posted yet is forgotten."""
        with self._changed:
            self._latest = progress
            self._changed.notify()

    def close(self, timeout: float = _TIMEOUT_SECONDS) -> None:
        """Posts what is left, for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _post_all(self) -> None:
        last = -self._interval
        while True:
            with self._changed:
                while not self._due(last):
                    if self._closing and self._latest is None:
                        return
                    wait = self._interval - (self._monotonic() - last) if self._latest is not None else None
                    self._changed.wait(wait)
                progress, self._latest = self._latest, None
            if progress is None:
                return
            last, self._posted_stage = self._monotonic(), progress.stage
            # Whatever the network, the server or the token file does: the training goes on.
            with contextlib.suppress(Exception):
                self._post(progress)

    def _due(self, last: float) -> bool:
        if self._latest is None:
            return False
        changed = self._latest.stage is not self._posted_stage
        return changed or self._closing or self._monotonic() - last >= self._interval

    def _post(self, progress: Progress) -> None:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
        body = kubeflow_report(progress).to_json().encode()
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310
        context = ssl.create_default_context(cafile=self._ca_certificates) if self._ca_certificates else None
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context):  # noqa: S310
            pass


def kubeflow_report(progress: Progress) -> ProgressReport:
    """The body of a post: KubeflowCallback's record for any server that knows it, and this trainer's own."""
    values = {
        "current_step": progress.step,
        "total_steps": progress.total_steps,
        "current_epoch": progress.epoch,
        "loss": progress.loss,
        "eval_loss": progress.eval_loss,
        "learning_rate": progress.learning_rate,
    }
    status = TrainerStatus(
        progress_percentage=progress.percent,
        estimated_remaining_seconds=progress.eta_seconds,
        metrics=[Metric(name=name, value=str(value)) for name, value in values.items() if value is not None],
        last_updated_time=progress.heartbeat_time,
    )
    return ProgressReport(trainer_status=status, progress=progress)
