"""The command: arguments, environment, standard output, the termination message and the exit code."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import RECIPE_ENV, TERMINATION_ENV
from finetune_trainer.contract.preflight_report import CheckResult, PreflightReport, Verdict
from finetune_trainer.contract.progress import Stage
from finetune_trainer.inputs.recipe_file import read_recipe
from finetune_trainer.preflight.report import exit_code, shown, termination
from finetune_trainer.preflight.run import check_recipe
from finetune_trainer.progress.http_sink import HttpSink
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.runtime import log
from finetune_trainer.runtime.machine_errors import is_panic, out_of_memory_reason
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.storage.retry import RetryNotifier, log_wait
from finetune_trainer.storage.timing import CHECKING


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Checks the recipe, prints the report and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m finetune_trainer preflight", description="Checks storage, data and model of a recipe."
    )
    parser.add_argument("--recipe", metavar="FILE", help=f"the recipe as JSON (default: ${RECIPE_ENV})")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="form of the report")
    options = parser.parse_args(argv)
    report = _report(options.recipe or environment.get(RECIPE_ENV, ""), environment)
    sys.stdout.write((report.to_json() if options.output == "json" else shown(report)) + "\n")
    sys.stdout.flush()
    if path := environment.get(TERMINATION_ENV):
        termination(report).write(Path(path))
    return exit_code(report)


def _report(recipe_file: str, environment: Mapping[str, str]) -> PreflightReport:
    sink = HttpSink.from_environment(environment)
    reporter = Reporter([sink] if sink else [])
    reporter.stage(Stage.VALIDATING)
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        reporter.update(bytes_downloaded=done)

    try:
        with _sigterm_raises():
            return _checked(recipe_file, environment, on_bytes, RetryNotifier(log_wait, reporter.waiting))
    except _TerminatedError:
        return _failed("preflight", FailureReason.PREEMPTED, "the pod was asked to end")
    except TrainerError as error:
        return _failed("recipe", error.reason, error.message)
    except BaseException as error:  # the last stop: whatever it is must reach the user as a sentence
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if (reason := out_of_memory_reason(error)) is not None:
            return _failed("preflight", reason, f"memory ran out while the data was checked ({type(error).__name__})")
        log.failure("crashed", error)
        return _failed("preflight", FailureReason.INTERNAL, f"{type(error).__name__}: {error}")
    finally:
        if sink:
            sink.close()


def _checked(
    recipe_file: str, environment: Mapping[str, str], on_bytes: ByteCount, notifier: RetryNotifier
) -> PreflightReport:
    recipe = read_recipe(recipe_file)
    stores = StoreRegistry.of_pod(recipe, environment, CHECKING.with_notifier(notifier))
    return check_recipe(recipe, stores, on_bytes=on_bytes)


class _TerminatedError(BaseException):
    """SIGTERM. Not an Exception: no check may take it for its own failure and go on."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM an exception, so that a write probe is removed. Process 1 of a container ignores it by default."""

    def stop(*_: object) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failed(name: str, reason: FailureReason, message: str) -> PreflightReport:
    item = CheckResult(name=name, verdict=Verdict.FAILED, reason=reason, message=message)
    return PreflightReport(passed=False, checks=[item])
