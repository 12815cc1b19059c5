"""The process in the training pod: `python -m finetune_trainer [--recipe FILE]`, and `… preflight …`.

This is the composition root. It reads the environment, handles signals, writes the termination message, and sets the
exit code.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_trainer.contract.failure import FAILURES, FailureReason, TrainerError, exit_code_of
from finetune_trainer.contract.layout import (
    RECIPE_ENV,
    TERMINATION_ENV,
    WORK_ENV,
)
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.distributed.launch import launch
from finetune_trainer.distributed.visible_gpus import visible_gpus
from finetune_trainer.distributed.worker import PipeSink, exit_with_launcher
from finetune_trainer.distributed.world import Pod, World, is_first_pod
from finetune_trainer.inputs.recipe_file import read_recipe
from finetune_trainer.progress.http_sink import HttpSink
from finetune_trainer.progress.reporter import Reporter, Sink
from finetune_trainer.runtime import log
from finetune_trainer.runtime.cuda_allocator import use_expandable_segments
from finetune_trainer.runtime.machine_errors import is_panic


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs training or preflight; returns the exit code.

    Args:
        arguments: the command line, without the program's name.
        environment: the environment variables.
    """
    world = World.from_environment(environment)
    log.set_up(
        rank=world.rank if world else 0, level=logging.ERROR if world is not None and world.quiet else logging.INFO
    )
    log.quieten()
    if arguments[:1] == ["preflight"]:
        from finetune_trainer import preflight

        return preflight.main(arguments[1:], environment)
    options = _parser().parse_args(arguments)
    use_expandable_segments(os.environ)
    return train(options.recipe or environment.get(RECIPE_ENV, ""), environment, world)


def train(recipe_file: str, environment: Mapping[str, str], world: World | None = None) -> int:
    """Trains by the recipe in a file. The outcome is in the log, the termination message and the exit code.

    Args:
        recipe_file: path of the recipe.
        environment: the environment variables.
        world: rank and sizes of this process, if the launcher has started it as one of several; else None.

    Returns:
        The exit code.
    """
    # Of several pods only the first one reports progress.
    sink = HttpSink.from_environment(environment) if is_first_pod(environment) else None
    sinks: list[Sink] = [sink] if sink else []
    if world is not None:
        exit_with_launcher()
        if world.local_rank == 0:
            sinks.append(PipeSink(world))
    reporter = Reporter(sinks)
    stop = stop_on_sigterm()
    try:
        ended = _train(recipe_file, environment, reporter, stop, world)
    except TrainerError as error:
        ended = _failed(error.reason, error.message, reporter.progress)
    except BaseException as error:  # every error must reach the user as a message
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        log.failure("crashed", error)
        ended = _failed(FailureReason.INTERNAL, f"{type(error).__name__}: {error}", reporter.progress)
    if sink:
        sink.close()
    if path := environment.get(TERMINATION_ENV):
        _write(ended, Path(path))
    return exit_code_of(ended.reason)


def _train(
    recipe_file: str,
    environment: Mapping[str, str],
    reporter: Reporter,
    stop: threading.Event,
    world: World | None,
) -> Termination:
    from finetune_trainer.storage.retry import log_wait
    from finetune_trainer.train.run import refuse, run, run_worker
    from finetune_trainer.train.training_context import training_context

    recipe = read_recipe(recipe_file)
    if world is None:
        pod = Pod.of(recipe, environment)
        if pod.size > 1:
            refuse(recipe)
            ended = launch(Path(recipe_file), pod, environment, stop, reporter.take)
            # Any process may have failed, but only the first process knows the progress of the training.
            return ended.model_copy(update={"progress": reporter.progress}) if ended.reason else ended
        # torch reads the variable when it initialises CUDA.
        os.environ.update(visible_gpus(pod, 0, environment))
    work = environment.get(WORK_ENV)
    with training_context(
        recipe, environment, reporter, stop, work=Path(work) if work else None, listeners=[log_wait], world=world
    ) as context:
        if world is not None and world.rank != 0:
            run_worker(recipe, context)
            return Termination(outcome=Outcome.SUCCEEDED, progress=reporter.progress)
        result = run(recipe, context)
    log.event("finished", outcome=result.outcome, uri=result.output.uri)
    return Termination(
        outcome=result.outcome, fingerprint=result.fingerprint, progress=reporter.progress, output=result.output
    )


def stop_on_sigterm() -> threading.Event:
    """Installs handlers for SIGTERM (from the kubelet) and SIGINT (from a terminal); returns the flag that they set.

    The training ends itself when it sees the flag. A second signal ends the process immediately.
    """
    stop, numbers = threading.Event(), (signal.SIGTERM, signal.SIGINT)

    def tell(*_: object) -> None:
        stop.set()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        signal.signal(number, tell)
    return stop


def _write(ended: Termination, path: Path) -> None:
    """Writes the termination message. An error is only logged, because the exit code has the reason too."""
    try:
        ended.write(path)
    except OSError as error:
        log.event("termination", level=logging.WARNING, path=path, message=f"not written: {error.strerror}")


def _failed(reason: FailureReason, message: str, progress: Progress) -> Termination:
    # PEER_FAILED only follows another process's failure. As a warning it does not hide that failure in the log.
    level = logging.WARNING if reason is FailureReason.PEER_FAILED else logging.ERROR
    log.event("failed", level=level, reason=reason, message=message, remedy=FAILURES[reason].remedy)
    return Termination(outcome=Outcome.FAILED, reason=reason, message=message, progress=progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune_trainer",
        description="Trains a LoRA adapter by a recipe. `preflight` as the first word checks a recipe instead.",
    )
    parser.add_argument("--recipe", metavar="FILE", help=f"the recipe as JSON (default: ${RECIPE_ENV})")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
