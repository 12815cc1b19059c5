"""What a local run shows: a progress bar while it trains, and how to load the adapter at its end."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.uri import Scheme, parse_uri
from finetune_trainer.export.base_model import loading_code


class ProgressBar:
    """A bar of optimizer steps with the losses; the stage before and after."""

    def __init__(self) -> None:
        self._bar = tqdm(
            desc="Starting",
            unit="step",
            file=sys.stderr,
            dynamic_ncols=True,
            # A log file wants a line now and then, a terminal wants to move.
            mininterval=0.2 if sys.stderr.isatty() else 10,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Takes a record."""
        self._bar.set_description_str(str(progress.stage), refresh=False)  # without a second colon
        if progress.total_steps and self._bar.total != progress.total_steps:
            self._bar.reset(total=progress.total_steps)
        shown = {}
        if progress.loss is not None:
            shown["loss"] = f"{progress.loss:.4f}"
        if progress.eval_loss is not None:
            shown["eval_loss"] = f"{progress.eval_loss:.4f}"
        if progress.tokens_per_second is not None:
            shown["tokens/s"] = f"{progress.tokens_per_second:,.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update((progress.step or self._bar.n) - self._bar.n)


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
