"""Sends progress reports as transformers' KubeflowCallback does: by POST, with a token from a file. It logs errors."""

import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from finetune_trainer.contract.layout import PROGRESS_TOKEN_ENV, PROGRESS_URL_ENV
from finetune_trainer.contract.progress import Metric, Progress, ProgressReport, TrainerStatus

_CA_ENV = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
_TIMEOUT_SECONDS = 5


class Reporter:
    """Reports to the URL in the environment. Without a URL it does nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._url = environment.get(PROGRESS_URL_ENV)
        self._token_path = environment.get(PROGRESS_TOKEN_ENV)
        self._ca_path = environment.get(_CA_ENV)

    def send(self, progress: Progress) -> None:
        """Sends one record. Logs an error, because a report must never end a training."""
        if not self._url:
            return
        body = ProgressReport(trainer_status=_kubeflow(progress), progress=progress).to_json().encode()
        request = urllib.request.Request(self._url, data=body, headers=self._headers(), method="POST")
        context = ssl.create_default_context(cafile=self._ca_path) if self._ca_path else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context):
                pass
        except urllib.error.HTTPError as error:
            with error:
                print(f"report refused: {error.code} {error.read(500).decode(errors='replace')}", file=sys.stderr)
        except OSError as error:
            print(f"report not sent: {error}", file=sys.stderr)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        # Read for each report, because the kubelet rotates the token.
        if self._token_path and (path := Path(self._token_path)).exists():
            headers["Authorization"] = f"Bearer {path.read_text().strip()}"
        return headers


def _kubeflow(progress: Progress) -> TrainerStatus:
    values = {
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "current_step": progress.step,
        "total_steps": progress.total_steps,
    }
    return TrainerStatus(
        progress_percentage=progress.percent,
        estimated_remaining_seconds=progress.eta_seconds,
        metrics=[Metric(name=name, value=str(value)) for name, value in values.items() if value is not None],
        last_updated_time=progress.heartbeat_time,
    )
