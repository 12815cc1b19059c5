"""Posts progress reports to the operator on a separate thread."""

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
"""Shortest time between two posts of the same stage. The operator writes a status at most every 10 s."""
_TIMEOUT_SECONDS = 5.0


class HttpSink:
    """Posts the latest record. Posts at once when the stage changes, else at most every `interval` seconds.

    An error of a post is ignored: the training continues. Every post reads the token file again, because the kubelet
    rotates the token.

    Args:
        url: URL of the operator's progress server.
        token: file with the pod's token; None sends no token.
        ca_certificates: file with the certificates that the server's certificate must chain to; None uses the system's.
        interval: shortest time between two posts of the same stage, in seconds.
        monotonic: returns seconds that never go back.
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
        # A daemon thread, so that a server that does not answer cannot keep the pod alive.
        self._thread = threading.Thread(target=self._post_all, name="progress", daemon=True)
        self._thread.start()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "HttpSink | None":
        """Returns the sink that the operator's variables describe, or None when the variables are not set."""
        url = environment.get(PROGRESS_URL_ENV)
        if not url:
            return None
        token, certificates = environment.get(PROGRESS_TOKEN_ENV), environment.get(PROGRESS_CA_ENV)
        return cls(url, Path(token) if token else None, Path(certificates) if certificates else None)

    def __call__(self, progress: Progress) -> None:
        """Queues a record. It replaces an older record that was not posted yet."""
        with self._changed:
            self._latest = progress
            self._changed.notify()

    def close(self, timeout: float = _TIMEOUT_SECONDS) -> None:
        """Posts the queued record and ends the thread. Waits at most `timeout` seconds."""
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
            # No error of network, server or token file may end the training.
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
    """Makes a redirect an error. urllib would follow it and send the pod's token to the other host."""

    def redirect_request(self, *_: object) -> None:
        """Returns None, by which urllib raises the answer as an error."""


def kubeflow_report(progress: Progress) -> ProgressReport:
    """Returns the body of a post. It has the fields of transformers' KubeflowCallback, and this trainer's own record.

    A server that knows only KubeflowCallback can read its part.
    """
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
