"""The output of a local run: its stages, a progress bar while it trains, and how to load the adapter."""

import shlex
import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.text import readable
from finetune_trainer.contract.uri import Scheme, parse_uri
from finetune_trainer.export.base_model import loading_code


class Display:
    """Shows the progress of a run: when the training starts, and a progress bar of steps with the losses.

    Args:
        job: name of the job.
        processes: number of training processes.
    """

    def __init__(self, job: str, processes: int = 1) -> None:
        self._job = job
        self._processes = processes
        self._bar: tqdm | None = None  # type: ignore[type-arg]  # tqdm is generic in its stubs only
        self._resumed: int | None = None
        self._waited_for: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def waiting(self, message: str | None) -> None:
        """Prints what the run waits for, each message once."""
        if message is not None and message not in self._waited_for:
            self._waited_for.add(message)
            print_line(f"{self._job}: waiting: {message}")

    def show(self, progress: Progress) -> None:
        """Shows a record. In the stage Starting nothing is shown: the adapter may exist already."""
        self.waiting(progress.waiting_for)
        if self._bar is None:
            if progress.stage is Stage.STARTING:
                return
            print_line(f"{self._job}: training" + (f" in {self._processes} processes" if self._processes > 1 else ""))
            self._bar = _bar()
        if progress.resumed_from_step and self._resumed is None:
            self._resumed = progress.resumed_from_step
            print_line(f"{self._job}: resuming after step {self._resumed}, from its checkpoint")
        bar = self._bar
        bar.set_description_str(str(progress.stage), refresh=False)  # set_description would add a colon
        if progress.total_steps and bar.total != progress.total_steps:
            bar.reset(total=progress.total_steps)
        shown = {}
        if progress.loss is not None:
            shown["loss"] = f"{progress.loss:.4f}"
        if progress.reward_accuracy is not None:
            shown["accuracy"] = f"{progress.reward_accuracy:.2f}"
        if progress.eval_loss is not None:
            shown["eval_loss"] = f"{progress.eval_loss:.4f}"
        if progress.tokens_per_second is not None:
            shown["tokens/s"] = f"{progress.tokens_per_second:,.0f}"
        bar.set_postfix(shown, refresh=False)
        bar.update((progress.step or bar.n) - bar.n)


def print_line(text: str) -> None:
    """Prints a line for people to standard error, above a progress bar. Output for programs goes to standard output."""
    tqdm.write(readable(text), file=sys.stderr)


def _bar() -> "tqdm":  # type: ignore[type-arg]
    return tqdm(
        desc="Starting",
        unit="step",
        file=sys.stderr,
        dynamic_ncols=True,
        # Rarely into a log file, often on a terminal.
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )


def how_to_load(output: OutputRecord) -> str:
    """The Python code that loads the adapter."""
    uri = parse_uri(output.uri)
    if uri.scheme is Scheme.FILE:
        folder, first = uri.path, []
    else:
        folder = uri.path.rsplit("/", 1)[-1]
        first = [f"# first: aws s3 cp --recursive {shlex.quote(output.uri)} {shlex.quote(folder)}"]
    lines = loading_code(output.base_model, folder).splitlines()
    return "\n".join(["load it with", *(f"    {line}".rstrip() for line in [*first, *lines])])
