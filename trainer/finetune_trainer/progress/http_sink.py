"""Posts progress reports to the operator, from a thread of its own."""

import contextlib
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from finetune_trainer.contract.layout import PROGRESS_CA_ENV, PROGRESS_TOKEN_ENV, PROGRESS_URL_ENV
from finetune_trainer.contract.progress import Metric, Progress, ProgressReport, Stage, TrainerStatus
from finetune_trainer.progress.reporter import Clock

INTERVAL_SECONDS = 5.0
"""Least time between two posts of one stage; the operator writes a status at most every 10 s anyway."""
_TIMEOUT_SECONDS = 5.0


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
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
        with opener.open(request, timeout=_TIMEOUT_SECONDS):
            pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the error that it is: urllib would send the pod's token to the other host."""

    def redirect_request(self, *_: object) -> None:
        """Urllib's hook; None lets the answer be an error."""


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
