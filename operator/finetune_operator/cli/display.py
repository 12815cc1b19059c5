"""What a local run shows: what it does, a progress bar while it trains, and how to load the adapter at its end."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.uri import Scheme, parse_uri
from finetune_trainer.export.base_model import loading_code


class Display:
    """What a run tells on the way: that it trains, once it is known that it does, and a bar of steps with the losses.

    Args:
        job: the job's name.
        processes: processes that train.
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
        """Tells what is waited for, each thing once."""
        if message is not None and message not in self._waited_for:
            self._waited_for.add(message)
            print_line(f"{self._job}: waiting: {message}")

    def show(self, progress: Progress) -> None:
        """Takes a record. Until something is fetched, the run may still turn out to be done already."""
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
        bar.set_description_str(str(progress.stage), refresh=False)  # without a second colon
        if progress.total_steps and bar.total != progress.total_steps:
            bar.reset(total=progress.total_steps)
        shown = {}
        if progress.loss is not None:
            shown["loss"] = f"{progress.loss:.4f}"
        if progress.eval_loss is not None:
            shown["eval_loss"] = f"{progress.eval_loss:.4f}"
        if progress.tokens_per_second is not None:
            shown["tokens/s"] = f"{progress.tokens_per_second:,.0f}"
        bar.set_postfix(shown, refresh=False)
        bar.update((progress.step or bar.n) - bar.n)


def print_line(text: str) -> None:
    """A line for a person, above a bar that is there; what programs read goes to the standard output."""
    tqdm.write(text, file=sys.stderr)


def _bar() -> "tqdm":  # type: ignore[type-arg]
    return tqdm(
        desc="Starting",
        unit="step",
        file=sys.stderr,
        dynamic_ncols=True,
        # A log file wants a line now and then, a terminal wants to move.
        mininterval=0.2 if sys.stderr.isatty() else 10,
    )


def how_to_load(output: OutputRecord) -> str:
    """The lines of Python that load the adapter."""
    uri = parse_uri(output.uri)
    if uri.scheme is Scheme.FILE:
        folder, first = uri.path, []
    else:
        folder = uri.path.rsplit("/", 1)[-1]
        first = [f"# first: aws s3 cp --recursive {output.uri} {folder}"]
    lines = loading_code(output.base_model, folder).splitlines()
    return "\n".join(["load it with", *(f"    {line}".rstrip() for line in [*first, *lines])])
