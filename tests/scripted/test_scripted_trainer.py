"""The scripted trainer as a process: what a pod's status and the operator's progress server would see of it."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.layout import (
    POD_UID_ENV,
    PROGRESS_TOKEN_ENV,
    PROGRESS_URL_ENV,
    RECIPE_ENV,
    TERMINATION_ENV,
)
from finetune_trainer.contract.preflight_report import PreflightReport
from finetune_trainer.contract.progress import ProgressReport, Stage
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome, Termination
from scripted.scenario import SCENARIO_ENV

ROOT = Path(__file__).parents[2]
FAST = {"steps": 4, "stepSeconds": 0}
RECIPE: dict[str, Any] = {
    "job": {"name": "support-bot"},
    "model": {"uri": "hf://org/model"},
    "dataset": {"uri": "s3://data/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}


class Reports(http.server.ThreadingHTTPServer):
    """A progress server that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens: set[str | None] = set()
        self.bodies: list[ProgressReport] = []
        self.first = threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Reports

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        self.server.bodies.append(ProgressReport.model_validate_json(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if self.server.bodies[-1].record().step:
            self.server.first.set()

    def log_message(self, *_: object) -> None:
        pass


class Pod:
    """What a pod is to the scripted trainer: files, variables, a process."""

    def __init__(self, folder: Path, reports: Reports) -> None:
        self._folder, self._reports = folder, reports
        (folder / "token").write_text("projected\n")

    def start(self, scenario: object, *arguments: str, attempt: int = 1) -> subprocess.Popen[str]:
        recipe = Recipe.model_validate({**RECIPE, "job": {**RECIPE["job"], "attempt": attempt}})
        (self._folder / "recipe.json").write_text(recipe.to_json())
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'trainer'}:{ROOT / 'tests'}",
            RECIPE_ENV: str(self._folder / "recipe.json"),
            TERMINATION_ENV: str(self._folder / "termination"),
            POD_UID_ENV: "0123456789abcdef",
            PROGRESS_URL_ENV: f"http://127.0.0.1:{self._reports.server_port}/report",
            PROGRESS_TOKEN_ENV: str(self._folder / "token"),
            SCENARIO_ENV: json.dumps(scenario),
        }
        main = ROOT / "tests/scripted/finetune_trainer_main.py"
        return subprocess.Popen(
            [sys.executable, "-P", main, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )

    def run(self, scenario: object, *arguments: str, attempt: int = 1) -> tuple[int, str]:
        with self.start(scenario, *arguments, attempt=attempt) as process:
            output, _ = process.communicate(timeout=60)
            return process.returncode, output

    @property
    def message(self) -> Termination | None:
        path = self._folder / "termination"
        return Termination.read(path.read_text()) if path.exists() else None


@pytest.fixture
def reports() -> Iterator[Reports]:
    with Reports() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pod(tmp_path: Path, reports: Reports) -> Pod:
    return Pod(tmp_path, reports)


def test_success_reports_every_step_and_ends_with_an_output_record(pod: Pod, reports: Reports) -> None:
    code, _ = pod.run(FAST)

    assert code == 0
    records = [body.record() for body in reports.bodies]
    assert [record.step for record in records if record.stage is Stage.TRAINING] == [0, 1, 2, 3, 4]
    assert [records[0].stage, records[-1].stage] == [Stage.LOADING, Stage.FINISHED]
    assert reports.tokens == {"Bearer projected"}
    assert pod.message is not None
    assert pod.message.outcome is Outcome.SUCCEEDED
    assert pod.message.output is not None
    assert pod.message.fingerprint is not None
    place = f"s3://models/adapters/support-bot/{pod.message.fingerprint[:12]}"
    assert pod.message.output.uri == f"{place}/1-01234567"
    assert pod.message.output.manifest_uri == f"{place}/manifest.json"


def test_reports_are_understood_as_those_of_an_unmodified_trl_image(pod: Pod, reports: Reports) -> None:
    pod.run(FAST)

    plain = [body.model_copy(update={"progress": None}).record() for body in reports.bodies]
    assert [record.step for record in plain][-1] == 4
    assert plain[-1].percent == 100
    assert plain[-1].loss == pytest.approx(1.0)


@pytest.mark.parametrize("reason", [FailureReason.GPU_OUT_OF_MEMORY, FailureReason.DATASET_INVALID])
def test_a_failure_says_its_reason_and_exits_with_its_code(pod: Pod, reason: FailureReason) -> None:
    code, _ = pod.run({**FAST, "end": "fail", "reason": reason, "message": "line 7", "endStep": 2})

    assert code == ExitCode[reason.name]
    assert pod.message is not None
    assert (pod.message.outcome, pod.message.reason, pod.message.message) == (Outcome.FAILED, reason, "line 7")
    assert pod.message.progress is not None
    assert pod.message.progress.step == 2


def test_a_crash_leaves_its_code_and_nothing_else(pod: Pod) -> None:
    assert pod.run({**FAST, "end": "crash", "exitCode": 7})[0] == 7
    assert pod.message is None


def test_being_killed_leaves_nothing(pod: Pod) -> None:
    assert pod.run({**FAST, "end": "kill"})[0] == -signal.SIGKILL
    assert pod.message is None


def test_taking_memory_gives_up_where_nothing_limits_it(pod: Pod) -> None:
    code, output = pod.run({**FAST, "end": "oom", "oomBytes": 64 << 20})
    assert code == ExitCode.INTERNAL
    assert f"not killed after {64 << 20} bytes" in output


def test_each_attempt_plays_its_own_scenario_and_later_ones_the_last(pod: Pod) -> None:
    script = [{**FAST, "end": "crash", "exitCode": 9}, {**FAST, "fromStep": 3}]
    assert [pod.run(script, attempt=attempt)[0] for attempt in (1, 2, 3)] == [9, 0, 0]


def test_a_message_that_is_none_of_ours(pod: Pod) -> None:
    assert pod.run({**FAST, "termination": "garbage"})[0] == 0
    assert pod.message is None


def test_success_without_or_with_another_output_record(pod: Pod) -> None:
    pod.run({**FAST, "output": None})
    assert pod.message is not None
    assert pod.message.output is None
    pod.run({**FAST, "output": {"digest": "sha256:0"}, "fingerprint": "f" * 64})
    assert pod.message is not None
    assert pod.message.output is not None
    assert (pod.message.output.digest, pod.message.fingerprint) == ("sha256:0", "f" * 64)


@pytest.mark.parametrize(
    ("behaviour", "steps", "code"),
    [("save", 1000, ExitCode.PREEMPTED), ("die", 1000, 128 + signal.SIGTERM), ("ignore", 4, 0)],
)
def test_sigterm(pod: Pod, reports: Reports, behaviour: str, steps: int, code: int) -> None:
    with pod.start({"steps": steps, "stepSeconds": 0.3, "onSigterm": behaviour}) as process:
        assert reports.first.wait(30)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert process.returncode == code
    reason = pod.message.reason if pod.message else None
    assert reason is (FailureReason.PREEMPTED if behaviour == "save" else None)
    assert (pod.message is None) is (behaviour == "die")


def test_a_hanging_trainer_reports_no_more_and_still_obeys_sigterm(pod: Pod, reports: Reports) -> None:
    with pod.start({**FAST, "end": "hang", "endStep": 2}) as process:
        assert reports.first.wait(30)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert process.returncode == ExitCode.PREEMPTED
    assert max(body.record().step or 0 for body in reports.bodies) == 2


def test_preflight_passes_quickly_and_names_the_run_as_training_will(pod: Pod) -> None:
    code, output = pod.run({}, "preflight")
    assert code == 0
    report = PreflightReport.model_validate_json(output)
    assert report.passed
    assert pod.message is not None
    assert pod.message.preflight is not None
    assert pod.message.preflight.rows == 100
    assert pod.message.fingerprint == report.fingerprint
    pod.run(FAST)
    assert pod.message.fingerprint == report.fingerprint


def test_preflight_fails_with_its_reason(pod: Pod) -> None:
    scenario = {"preflight": {"reason": "DatasetInvalid", "message": "train.jsonl:3: no JSON"}}
    code, output = pod.run(scenario, "preflight")
    assert code == ExitCode.DATASET_INVALID
    assert not PreflightReport.model_validate_json(output).passed
    assert pod.message is not None
    assert (pod.message.reason, pod.message.message) == (FailureReason.DATASET_INVALID, "train.jsonl:3: no JSON")


def test_preflight_finds_the_adapter_of_this_run(pod: Pod) -> None:
    code, output = pod.run({"preflight": {"existing": True}}, "preflight")
    assert code == 0
    assert PreflightReport.model_validate_json(output).existing is not None
    assert pod.message is not None
    assert pod.message.outcome is Outcome.REUSED


def test_a_misspelt_scenario_is_an_error(pod: Pod) -> None:
    assert pod.run({"stepz": 3})[0] == ExitCode.INVALID_SPEC
    assert pod.run({}, "dance")[0] == ExitCode.USAGE
