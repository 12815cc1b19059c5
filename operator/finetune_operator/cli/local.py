"""Runs a FineTuneJob on this machine: checks its recipe and trains it, in this process or in one process per GPU.

`storage.secretRef` and `model.tokenSecretRef` name Secrets of a cluster. Here the credentials come from the SDK's own
chain (environment, profile, instance identity) and from the Hub client (HF_TOKEN, a login).
"""

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.cli.display import Display, how_to_load, print_line
from finetune_operator.cli.jobfile import JobFile
from finetune_operator.cli.remedies import local_remedy
from finetune_trainer.contract.failure import EXIT_OK, FailureReason, TrainerError
from finetune_trainer.contract.layout import ALLOW_CPU_ENV, WORK_ENV
from finetune_trainer.contract.recipe import JobIdentity, Recipe
from finetune_trainer.contract.recipe.profile import ProfileRecord
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.distributed.visible_gpus import visible_gpus
from finetune_trainer.distributed.world import Pod
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.storage.retry import RetryNotifier
from finetune_trainer.storage.timing import CHECKING, Timing

if TYPE_CHECKING:
    from finetune_trainer.progress.reporter import Reporter
    from finetune_trainer.train.context import Result


def refuse(job: JobFile) -> None:
    """Refuses a job that cannot run locally.

    Raises:
        TrainerError: names the field.
    """
    if job.spec.resources.nodes > 1:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED, "spec.resources.nodes: a local run has one machine; set 1, or use a cluster"
        )


def recipe_of(job: JobFile) -> Recipe:
    """The recipe of the job."""
    recipe = job.spec.recipe(JobIdentity(name=job.name))
    if job.profile is None:
        return recipe
    used = ProfileRecord(sources=job.profile.sources, digest=job.profile.digest)
    return recipe.model_copy(update={"profile": used})


def preflight(job: JobFile, output: str) -> int:
    """Runs preflight and prints the report. Returns the exit code of the first check that failed, or 0."""
    from finetune_trainer.preflight import check_recipe, exit_code, shown

    refuse(job)
    report = check_recipe(
        recipe_of(job), _stores(job, CHECKING.with_notifier(RetryNotifier(Display(job.name).waiting)))
    )
    print(report.to_json() if output == "json" else shown(report, local_remedy))
    return exit_code(report)


def run(job: JobFile, work: Path | None) -> int:
    """Runs preflight, trains with a progress bar, and prints where the adapter is.

    Returns:
        The exit code: 0, or that of the first check that failed.

    Raises:
        TrainerError: the training failed with a known cause.
    """
    refuse(job)
    if job.spec.preflight.enabled:
        from finetune_trainer.preflight import check_recipe, exit_code, shown

        print_line(f"{job.name}: checking storage, data and model")
        report = check_recipe(
            recipe_of(job), _stores(job, CHECKING.with_notifier(RetryNotifier(Display(job.name).waiting)))
        )
        if not report.passed:
            print_line(shown(report, local_remedy))
            return exit_code(report)
    else:
        print_line(f"{job.name}: looking for data, model and an adapter of an identical run")
    result = _train(job, work)
    if result.outcome is Outcome.REUSED:
        print_line(f"{job.name}: an identical run already exists; nothing is trained")
    print_line(f"{job.name}: the adapter is at {result.output.uri}")
    print(how_to_load(result.output))
    return EXIT_OK


def _train(job: JobFile, work: Path | None) -> "Result":
    from finetune_trainer.runtime import log
    from finetune_trainer.runtime.cuda_allocator import use_expandable_segments

    log.quieten()
    use_expandable_segments(os.environ)
    from finetune_trainer.progress.reporter import Reporter
    from finetune_trainer.train.known_causes import known_causes
    from finetune_trainer.train.run import run as train
    from finetune_trainer.train.training_context import training_context

    recipe = recipe_of(job)
    pod = Pod.of(recipe, {})
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, _interrupt_handler(stop))
    try:
        with Display(job.name, pod.size) as display:
            reporter = Reporter([display.show])
            if pod.size > 1:
                with known_causes(), tempfile.TemporaryDirectory(prefix="run-", dir=work) as folder:
                    return _train_in_processes(recipe, pod, Path(folder), reporter, stop)
            # torch reads the variable when it initialises CUDA.
            os.environ.update(visible_gpus(pod, 0, os.environ))
            # No Secret is mounted here: the SDK's and the Hub client's own chains give the credentials.
            developers = {name: os.environ[name] for name in (ALLOW_CPU_ENV,) if name in os.environ}
            with training_context(
                recipe, developers, reporter, stop, work=work, tracker_environment=os.environ
            ) as context:
                return train(recipe, context)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_handler(stop: threading.Event) -> Callable[..., None]:
    """The signal handler: the first interrupt stops the run at the next step, a second one at once."""

    def handle(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print_line("\nstopping; interrupt again to stop at once")

    return handle


def _train_in_processes(
    recipe: Recipe, pod: Pod, folder: Path, reporter: "Reporter", stop: threading.Event
) -> "Result":
    from finetune_trainer.distributed.launch import launch
    from finetune_trainer.train.context import Result
    from finetune_trainer.train.run import refuse as refuse_recipe

    refuse_recipe(recipe)
    file = folder / "recipe.json"
    file.write_text(recipe.to_json(), encoding="utf-8")
    ended = launch(file, pod, {**os.environ, WORK_ENV: str(folder)}, stop, reporter.take, quiet=True)
    if ended.reason is not None:
        raise TrainerError(ended.reason, ended.message)
    assert ended.output is not None
    assert ended.fingerprint is not None
    return Result(outcome=ended.outcome, fingerprint=ended.fingerprint, output=ended.output)


def _stores(job: JobFile, timing: Timing) -> StoreRegistry:
    spec = job.spec
    return StoreRegistry(spec.storage, None, model=spec.model, lora=spec.lora, dataset=spec.dataset, timing=timing)
