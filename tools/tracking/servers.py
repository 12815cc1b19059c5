"""MLflow's server and Trackio's on loopback, from the environment `.venv-trackers` (`scripts/venv trackers`)."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-trackers/bin/python"
_START_SECONDS = 180.0


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """Runs an MLflow server with its data in `folder`. Yields its URL.

    Raises:
        RuntimeError: it has not come up.
    """
    command = [
        *(str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    with _running(command, folder, f"http://127.0.0.1:{port}", "/health", {"MLFLOW_DISABLE_TELEMETRY": "true"}) as url:
        yield url


@contextmanager
def trackio_server(folder: Path, port: int, token: str) -> Iterator[str]:
    """Runs a Trackio server with its data in `folder`, which takes metrics with this token. Yields its URL.

    Raises:
        RuntimeError: it has not come up.
    """
    program = "import trackio; trackio.show(open_browser=False, block_thread=True)"
    variables = {
        "TRACKIO_DIR": str(folder),
        "TRACKIO_WRITE_TOKEN": token,
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
    }
    with _running([str(PYTHON), "-c", program], folder, f"http://127.0.0.1:{port}", "/", variables) as url:
        yield url


@contextmanager
def _running(command: Sequence[str], folder: Path, url: str, path: str, variables: Mapping[str, str]) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "DO_NOT_TRACK": "1", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(url + path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[2]} has not come up: {log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        yield url
    finally:
        # The server's workers are of its process group.
        os.killpg(process.pid, 9)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
