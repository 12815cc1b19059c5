"""Progress reports, against a real HTTP server."""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.layout import PROGRESS_TOKEN_ENV, PROGRESS_URL_ENV
from finetune_trainer.contract.progress import Progress, ProgressReport, Stage
from finetune_trainer.progress.http_sink import HttpSink, kubeflow_report
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.progress.step_rate import StepRate

NEVER = 3600.0


@dataclass
class Server:
    """A server that keeps what it was sent."""

    url: str
    status: int = 200
    location: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    came: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def wait(self, posts: int) -> None:
        """Waits until `posts` more posts have come."""
        for _ in range(posts):
            assert self.came.acquire(timeout=30), f"only {len(self.bodies)} posts came"


@pytest.fixture
def server() -> Iterator[Server]:
    with _serving() as kept:
        yield kept


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another host."""
    with _serving() as kept:
        yield kept


@contextmanager
def _serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.bodies.append(json.loads(body))
            kept.tokens.append(self.headers.get("Authorization", ""))
            self.send_response(kept.status)
            if kept.location is not None:
                self.send_header("Location", kept.location)
            self.end_headers()
            kept.came.release()

        def do_GET(self) -> None:
            kept.tokens.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        kept = Server(url=f"http://127.0.0.1:{http.server_port}/report")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield kept
        http.shutdown()
        thread.join()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first\n")
    return file


def test_stage_change_is_posted_at_once_and_steps_wait(server: Server, token: Path) -> None:
    sink = HttpSink(server.url, token, interval=NEVER)
    reporter = Reporter([sink])
    reporter.stage(Stage.LOADING)
    server.wait(1)
    reporter.stage(Stage.TRAINING)
    server.wait(1)
    reporter.update(step=1)
    reporter.update(step=2)
    assert not server.came.acquire(timeout=0.2)

    sink.close()

    server.wait(1)
    stages = [body["progress"]["stage"] for body in server.bodies]
    assert stages == ["Loading", "Training", "Training"]
    assert server.bodies[-1]["progress"]["step"] == 2, "the latest record is the one that counts"


def test_token_is_read_for_every_post(server: Server, token: Path) -> None:
    sink = HttpSink(server.url, token, interval=NEVER)
    sink(Progress(stage=Stage.LOADING))
    server.wait(1)
    token.write_text("second\n")
    sink(Progress(stage=Stage.TRAINING))
    server.wait(1)
    sink.close()

    assert server.tokens == ["Bearer first", "Bearer second"]


def test_refusing_server_missing_token_and_dead_port_disturb_nothing(server: Server, token: Path) -> None:
    server.status = 500
    refused = HttpSink(server.url, token, interval=NEVER)
    refused(Progress(stage=Stage.LOADING))
    server.wait(1)
    refused(Progress(stage=Stage.TRAINING))
    server.wait(1)
    refused.close()

    for sink in (HttpSink(server.url, token / "missing"), HttpSink("http://127.0.0.1:1/", token)):
        sink(Progress(stage=Stage.LOADING))
        sink.close()


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_brings_no_token_to_another_host(
    server: Server, elsewhere: Server, token: Path, status: int
) -> None:
    """These are the redirects that urllib follows after a POST, with all headers."""
    server.status, server.location = status, elsewhere.url
    sink = HttpSink(server.url, token, interval=NEVER)
    Reporter([sink]).stage(Stage.LOADING)
    server.wait(1)
    sink.close()

    assert server.tokens == ["Bearer first"]
    assert elsewhere.tokens == []


def test_body_is_understood_as_kubeflows_and_as_our_own() -> None:
    progress = Progress(stage=Stage.TRAINING, step=5, total_steps=10, percent=50, loss=1.5, eta_seconds=7)

    report = kubeflow_report(progress)

    assert report.record() == progress
    stock = ProgressReport(trainer_status=report.trainer_status).record()
    assert (stock.step, stock.total_steps, stock.percent, stock.loss, stock.eta_seconds) == (5, 10, 50, 1.5, 7)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_no_word_for_are_left_out(number: float) -> None:
    seen: list[Progress] = []
    Reporter([seen.append]).update(loss=number, learning_rate=number)

    text = kubeflow_report(seen[-1]).to_json()

    assert json.loads(text, parse_constant=pytest.fail)["progress"].keys() == {"stage", "heartbeatTime"}


def test_sink_exists_only_where_the_operator_asks_for_it(token: Path, server: Server) -> None:
    assert HttpSink.from_environment({}) is None

    sink = HttpSink.from_environment({PROGRESS_URL_ENV: server.url, PROGRESS_TOKEN_ENV: str(token)})
    assert sink is not None
    sink(Progress(stage=Stage.LOADING))
    sink.close()
    assert server.tokens == ["Bearer first"]


def test_bytes_of_many_threads_add_up() -> None:
    reporter = Reporter()

    def move() -> None:
        for _ in range(200):
            reporter.downloaded(3)
            reporter.uploaded(5)

    threads = [threading.Thread(target=move) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (reporter.progress.bytes_downloaded, reporter.progress.bytes_uploaded) == (4800, 8000)


def test_estimate_goes_by_the_recent_steps() -> None:
    rate = StepRate()
    rate.step(0.0, 0, 0)
    rate.step(1000.0, 1, 100)
    for step in range(2, 40):
        rate.step(1000.0 + 2 * step, step, 100 * step)

    assert rate.eta_seconds(139) == 200
    assert rate.tokens_per_second() == pytest.approx(50)
    assert rate.steps_per_second() == pytest.approx(0.5)


def test_no_estimate_before_the_first_step() -> None:
    rate = StepRate()
    assert rate.eta_seconds(10) is None
    rate.step(5.0, 0, 0)
    assert rate.eta_seconds(10) is None
    assert rate.tokens_per_second() is None
