"""Plays a scenario as a training pod or as a preflight pod."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from finetune_trainer.contract.failure import EXIT_OK, FAILURES, ExitCode, FailureReason, TrainerError
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.layout import MANIFEST_NAME, run_prefix, writer_folder
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.preflight_report import CheckResult, PreflightReport, Verdict
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome, OutputRecord, PreflightSummary, Termination
from scripted.reporter import Reporter
from scripted.scenario import End, OnSigterm, PreflightScenario, Scenario

_ADAPTER_BYTES = 9_800_000
_FIRST_LOSS, _LAST_LOSS = 3.0, 1.0
_KILLED_BY_TERM = 128 + signal.SIGTERM
_OOM_CHUNK = 16 << 20


class _Preempted(Exception):  # noqa: N818 (no error: the cluster wants the node back)
    """SIGTERM came, and the scenario ends the training then."""


class Trainer:
    """One attempt.

    Args:
        recipe: the recipe.
        scenario: the scenario.
        reporter: sends progress.
        termination: path of the termination message; None writes none.
        writer: identity of the pod.
        now: returns the current time.
        terminated: set when SIGTERM has come.
    """

    def __init__(
        self,
        recipe: Recipe,
        scenario: Scenario,
        *,
        reporter: Reporter,
        termination: Path | None,
        writer: str,
        now: Callable[[], datetime],
        terminated: threading.Event,
    ) -> None:
        self._recipe, self._scenario, self._reporter = recipe, scenario, reporter
        self._termination_path, self._writer, self._now, self._terminated = termination, writer, now, terminated
        self._fingerprint = scenario.fingerprint or scripted_fingerprint(recipe)
        self._progress = Progress(step=scenario.from_step, total_steps=scenario.steps)

    def play(self) -> int:
        """Plays the scenario to its end. Returns the exit code."""
        try:
            return self._attempt()
        except _Preempted:
            if self._scenario.on_sigterm is OnSigterm.DIE:
                return _KILLED_BY_TERM
            self._report(Stage.SAVING)
            threading.Event().wait(self._scenario.sigterm_seconds)
            return self._failed(FailureReason.PREEMPTED, f"saved at step {self._progress.step}")

    def _attempt(self) -> int:
        scenario = self._scenario
        if scenario.end is End.REUSE:
            return self._ended(Outcome.REUSED)
        self._report(Stage.LOADING)
        self._wait(scenario.start_seconds)
        self._report(Stage.TRAINING)
        last = scenario.steps if scenario.end_step is None else min(scenario.end_step, scenario.steps)
        for step in range(scenario.from_step + 1, last + 1):
            self._wait(scenario.step_seconds)
            self._report(Stage.TRAINING, step=step)
        return self._end()

    def _end(self) -> int:
        scenario = self._scenario
        match scenario.end:
            case End.FAIL:
                return self._failed(scenario.reason, scenario.message)
            case End.CRASH:
                self._write(None)
                return scenario.exit_code
            case End.KILL:
                self._write(None)
                os.kill(os.getpid(), signal.SIGKILL)
            case End.OUT_OF_MEMORY:
                self._write(None)
                return self._take_memory()
            case End.HANG:
                self._write(None)
                while True:
                    self._wait(3600)
        self._report(Stage.UPLOADING)
        code = self._ended(Outcome.SUCCEEDED)
        self._report(Stage.FINISHED)
        return code

    def _wait(self, seconds: float) -> None:
        if self._scenario.on_sigterm is OnSigterm.IGNORE:
            threading.Event().wait(seconds)
        elif self._terminated.wait(seconds):
            raise _Preempted

    def _report(self, stage: Stage, step: int | None = None) -> None:
        scenario, before = self._scenario, self._progress
        done = before.step or 0 if step is None else step
        share = done / scenario.steps if scenario.steps else 1.0
        self._progress = Progress(
            stage=stage,
            step=done,
            total_steps=scenario.steps,
            percent=int(100 * share),
            loss=before.loss if step is None else _FIRST_LOSS + (_LAST_LOSS - _FIRST_LOSS) * share,
            learning_rate=float(self._recipe.training.learning_rate),
            eta_seconds=round((scenario.steps - done) * scenario.step_seconds),
            heartbeat_time=self._now(),
        )
        print(f"{stage} step {done}/{scenario.steps}")
        if scenario.report:
            self._reporter.send(self._progress)

    def _ended(self, outcome: Outcome) -> int:
        record = None
        if self._scenario.output is not None:
            record = scripted_output(self._recipe, self._fingerprint, self._writer, self._progress.loss)
            record = OutputRecord.model_validate({**record.to_dict(), **self._scenario.output})
        self._write(Termination(outcome=outcome, output=record, progress=self._progress, fingerprint=self._fingerprint))
        return EXIT_OK

    def _failed(self, reason: FailureReason, message: str) -> int:
        self._write(
            Termination(
                outcome=Outcome.FAILED,
                reason=reason,
                message=message,
                progress=self._progress,
                fingerprint=self._fingerprint,
            )
        )
        return TrainerError(reason, message).exit_code

    def _write(self, message: Termination | None) -> None:
        write_termination(self._termination_path, message, instead=self._scenario.termination)

    def _take_memory(self) -> int:
        taken = []
        for _ in range(self._scenario.oom_bytes // _OOM_CHUNK):
            taken.append(bytearray(os.urandom(4096)) * (_OOM_CHUNK // 4096))
            self._wait(0)
        print(f"not killed after {len(taken) * _OOM_CHUNK} bytes: the pod has no memory limit below that")
        return ExitCode.INTERNAL


def preflight(recipe: Recipe, scenario: PreflightScenario, *, termination: Path | None, now: datetime) -> int:
    """Plays preflight: prints the report and writes the summary as the termination message. Returns the exit code."""
    threading.Event().wait(scenario.seconds)
    if scenario.exit_code is not None:
        return scenario.exit_code
    reason, passed = scenario.reason, scenario.reason is None
    message = "" if passed else scenario.message
    summary = PreflightSummary(rows=scenario.rows, bytes=scenario.rows * 512, schema="messages")
    mark = scripted_fingerprint(recipe)
    existing = scripted_output(recipe, mark, f"{now:%H%M%S}", _LAST_LOSS) if scenario.existing else None
    verdict = Verdict.PASSED if passed else Verdict.FAILED
    checks = [CheckResult(name="scripted", verdict=verdict, reason=reason, message=message)]
    print(
        PreflightReport(passed=passed, checks=checks, summary=summary, fingerprint=mark, existing=existing).to_json(),
    )
    outcome = Outcome.FAILED if not passed else Outcome.REUSED if existing else Outcome.SUCCEEDED
    write_termination(
        termination,
        Termination(
            outcome=outcome, reason=reason, message=message, fingerprint=mark, preflight=summary, output=existing
        ),
    )
    return EXIT_OK if reason is None else int(FAILURES[reason].exit_code or ExitCode.INTERNAL)


def write_termination(path: Path | None, message: Termination | None, *, instead: str | None = None) -> None:
    """Writes the termination message, or the text `instead`, or nothing."""
    if path is None:
        return
    if instead is not None:
        path.write_text(instead)
    elif message is not None:
        message.write(path)


def scripted_fingerprint(recipe: Recipe) -> str:
    """Returns the fingerprint of the recipe, with empty data."""
    objects = [SourceObject(uri=uri, size=0) for uri in _dataset_uris(recipe)]
    return fingerprint(recipe, objects, [SourceObject(uri=str(recipe.model.uri), size=0)])


def scripted_output(recipe: Recipe, mark: str, writer: str, loss: float | None) -> OutputRecord:
    """Returns the record of an adapter that does not exist."""
    place = run_prefix(recipe.output.uri, recipe.job.name, mark)
    return OutputRecord(
        uri=str(place.child(writer_folder(recipe.job.attempt, writer))),
        manifest_uri=str(place.child(MANIFEST_NAME)),
        digest=f"sha256:{mark}",
        size_bytes=_ADAPTER_BYTES,
        base_model=str(recipe.model.uri),
        rank=recipe.lora.rank,
        target_modules=["k_proj", "q_proj", "v_proj"],
        metrics={} if loss is None else {"train_loss": loss},
    )


def _dataset_uris(recipe: Recipe) -> list[str]:
    return list(map(str, recipe.dataset.places))
