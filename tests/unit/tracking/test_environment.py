"""The environment of the tracker's process: credentials of its own, and nothing else of a Secret or of the trainer."""

from pathlib import Path

import pytest

from finetune_trainer.contract.layout import TRACKING_SECRET_ENV
from finetune_trainer.contract.recipe.tracking import TrackingSpec
from finetune_trainer.tracking.environment import kind_of, tracker_environment
from finetune_trainer.tracking.messages import TrackerKind

URI = "https://mlflow.ml:5000"
OURS = {
    "PATH": "/usr/bin",
    "HTTPS_PROXY": "http://proxy:3128",
    "AWS_SECRET_ACCESS_KEY": "ours",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_TRACKING_TOKEN": "of a developer",
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    keys = {
        "MLFLOW_TRACKING_TOKEN": "token\n",
        "MLFLOW_TRACKING_URI": "https://elsewhere",
        "LD_PRELOAD": "/tmp/evil.so",
        "PATH": "/tmp/evil",
        "ca.crt": "certificate",
    }
    for name, value in keys.items():
        (folder / name).write_text(value)
    (folder / "MLFLOW_TRACKING_PASSWORD").write_bytes(b"\xff\xfe")
    return folder


def test_a_secret_sets_credentials_and_nothing_else(secret: Path, tmp_path: Path) -> None:
    found = tracker_environment(TrackerKind.MLFLOW, URI, {**OURS, TRACKING_SECRET_ENV: str(secret)}, tmp_path)

    assert found["MLFLOW_TRACKING_TOKEN"] == "token"
    assert (found["MLFLOW_TRACKING_URI"], found["PATH"]) == (URI, "/usr/bin")
    assert found["REQUESTS_CA_BUNDLE"] == found["SSL_CERT_FILE"] == str(secret / "ca.crt")
    assert found["HTTPS_PROXY"] == OURS["HTTPS_PROXY"]
    assert not {"LD_PRELOAD", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_HUB_OFFLINE"} & found.keys()


def test_a_secret_that_is_not_there_leaves_no_credentials(tmp_path: Path) -> None:
    variables = {**OURS, TRACKING_SECRET_ENV: str(tmp_path / "absent")}

    assert "MLFLOW_TRACKING_TOKEN" not in tracker_environment(TrackerKind.MLFLOW, URI, variables, tmp_path)


def test_a_local_run_has_the_developers_credentials(tmp_path: Path) -> None:
    found = tracker_environment(TrackerKind.MLFLOW, URI, OURS, tmp_path)

    assert found["MLFLOW_TRACKING_TOKEN"] == "of a developer"
    assert "AWS_SECRET_ACCESS_KEY" not in found


@pytest.mark.parametrize("kind", TrackerKind)
def test_nothing_phones_home(kind: TrackerKind, tmp_path: Path) -> None:
    found = tracker_environment(kind, URI, {}, tmp_path)

    assert found["DO_NOT_TRACK"] == "1"
    expected = {
        TrackerKind.MLFLOW: {"MLFLOW_DISABLE_TELEMETRY": "true"},
        TrackerKind.WANDB: {"WANDB_ERROR_REPORTING": "false"},
        TrackerKind.TRACKIO: {"HF_HUB_DISABLE_TELEMETRY": "1"},
    }
    assert expected[kind].items() <= found.items()


@pytest.mark.parametrize(
    ("uri", "variable", "value"),
    [
        ("https://trackio.ml", "TRACKIO_SERVER_URL", "https://trackio.ml"),
        ("hf://spaces/org/metrics", "TRACKIO_SPACE_ID", "org/metrics"),
    ],
)
def test_trackio_is_a_server_or_a_space(uri: str, variable: str, value: str, tmp_path: Path) -> None:
    assert tracker_environment(TrackerKind.TRACKIO, uri, {}, tmp_path)[variable] == value


@pytest.mark.parametrize("kind", TrackerKind)
def test_the_tracker_is_the_section_that_is_there(kind: TrackerKind) -> None:
    spec = TrackingSpec.model_validate({kind: {"uri": URI}})

    assert kind_of(spec) is kind
    assert spec.tracker is not None
    assert kind_of(TrackingSpec()) is None
    assert TrackingSpec().tracker is None
