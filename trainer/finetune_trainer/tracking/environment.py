"""The environment of the tracker's process: an allow-list, so that a Secret sets nothing but credentials."""

from collections.abc import Mapping
from pathlib import Path

import finetune_trainer
from finetune_trainer.contract.layout import TRACKING_SECRET_ENV
from finetune_trainer.contract.recipe.tracking import TrackingSpec
from finetune_trainer.tracking.messages import TrackerKind

_OF_THE_PROCESS = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LOGNAME", "XDG_CACHE_HOME"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"),
)
"""Variables that the tracker's process gets from the trainer's."""
CREDENTIALS: Mapping[TrackerKind, tuple[str, ...]] = {
    TrackerKind.MLFLOW: ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    TrackerKind.WANDB: ("WANDB_API_KEY",),
    TrackerKind.TRACKIO: ("TRACKIO_WRITE_TOKEN", "HF_TOKEN"),
}
"""Keys of a tracker's Secret, and the variables that they become."""
CA_KEY = "ca.crt"
"""Key of a tracker's Secret with the certificates of its server."""
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""httpx and Go read the first, requests the second."""
_LONGEST_CREDENTIAL = 16_384
_SPACE = "hf://spaces/"


def kind_of(tracking: TrackingSpec) -> TrackerKind | None:
    """The tracker of a training; None if it has none."""
    for kind in TrackerKind:
        if getattr(tracking, kind) is not None:
            return kind
    return None


def tracker_environment(kind: TrackerKind, uri: str, environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The variables of the tracker's process.

    Args:
        kind: the tracker.
        uri: the tracker's address.
        environment: the trainer's variables. In a local run they have the credentials.
        folder: where the tracker may write.
    """
    secret = environment.get(TRACKING_SECRET_ENV)
    given = environment if secret is None else _read(Path(secret), CREDENTIALS[kind])
    found = {name: environment[name] for name in _OF_THE_PROCESS if name in environment}
    found |= {name: given[name] for name in CREDENTIALS[kind] if name in given}
    if secret is not None and (authorities := Path(secret) / CA_KEY).is_file():
        found |= dict.fromkeys(_CA_VARIABLES, str(authorities))
    return {
        **found,
        **_settings(kind, uri, folder),
        # Nothing phones home.
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(Path(finetune_trainer.__file__).parents[1]),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _settings(kind: TrackerKind, uri: str, folder: Path) -> dict[str, str]:
    match kind:
        case TrackerKind.MLFLOW:
            # A request is repeated by us, so MLflow need not wait for minutes in one.
            return {
                "MLFLOW_TRACKING_URI": uri,
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
            }
        case TrackerKind.WANDB:
            return {
                "WANDB_BASE_URL": uri,
                "WANDB_DIR": str(folder),
                "WANDB_SILENT": "true",
                "WANDB_CONSOLE": "off",
                "WANDB_DISABLE_CODE": "true",
                "WANDB_DISABLE_GIT": "true",
                "WANDB_ERROR_REPORTING": "false",
            }
        case TrackerKind.TRACKIO:
            place = "TRACKIO_SPACE_ID" if uri.startswith(_SPACE) else "TRACKIO_SERVER_URL"
            return {place: uri.removeprefix(_SPACE), "TRACKIO_DIR": str(folder)}


def _read(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The keys of a mounted Secret. What cannot be a variable is left out; the server then says what is missing."""
    found = {}
    for name in names:
        try:
            with (folder / name).open(encoding="utf-8") as file:
                value = file.read(_LONGEST_CREDENTIAL).strip()
        except (OSError, UnicodeDecodeError):
            continue
        if value and "\0" not in value:
            found[name] = value
    return found
