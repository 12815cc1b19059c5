"""Renders the first rows in a separate process with limits on time and memory.

A template is a program. It can loop for ever or write gigabytes, and no sandbox for Python code prevents that. So
preflight runs it in a process that the kernel ends at its limits: `python -m finetune_trainer.data.templates.trial`.
That process reads the request as JSON from standard input and writes the result as JSON to standard output.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.loss_mask import LossMask
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.templates.probe import template_problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of the process.

    Attributes:
        cpu_seconds: processor time in seconds.
        wall_seconds: wall time in seconds; it ends the process on a machine without a free processor.
        memory_bytes: address space in bytes, including that of Python itself.
    """

    cpu_seconds: int = 20
    wall_seconds: int = 120
    memory_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The request: a template and the rows to render.

    Attributes:
        source: the template's Jinja text.
        special_tokens: the template's variables for special tokens (`bos_token` …).
        special: the texts of the tokenizer's special tokens.
        known: the texts of all tokens that the tokenizer never splits; None skips the check of the template's tokens.
        loss: `dataset.loss`.
        rows: the first conversations.
    """

    source: str
    special_tokens: Mapping[str, str]
    special: Sequence[str]
    known: Sequence[str] | None
    loss: Loss
    rows: Sequence[Messages]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """The result.

    Attributes:
        problem: what is wrong with the template itself, as the end of a sentence that begins with the template.
        faults: the faults of rows, by the row's index from 0.
    """

    problem: str | None = None
    faults: Mapping[int, Fault] = field(default_factory=dict)


def try_template(trial: Trial, bounds: Bounds | None = None) -> TrialResult:
    """Renders the rows in a separate process.

    Args:
        trial: the template and the rows.
        bounds: the limits of the process.
    """
    limits = bounds or Bounds()
    request = json.dumps({"trial": asdict(trial), "bounds": asdict(limits)})
    command = [sys.executable, "-m", __name__]
    try:
        ended = subprocess.run(  # noqa: PLW1510 (how it ended is looked at)
            command, input=request.encode(), capture_output=True, timeout=limits.wall_seconds
        )
    except subprocess.TimeoutExpired:
        return _out_of_bounds(limits)
    try:
        answer = json.loads(ended.stdout)
    except ValueError:
        return _out_of_bounds(limits)
    faults = {int(row): Fault(**{**fault, "kind": ProblemKind(fault["kind"])}) for row, fault in answer["faults"]}
    return TrialResult(problem=answer["problem"], faults=faults)


def _out_of_bounds(bounds: Bounds) -> TrialResult:
    took = f"took more than {bounds.cpu_seconds} seconds or {bounds.memory_bytes >> 20} MiB"
    return TrialResult(problem=f"{took} to render the first rows: it loops, or writes far too much")


def _answer(trial: Trial) -> TrialResult:
    try:
        template = ChatTemplate(trial.source, trial.special_tokens)
    except ValueError as error:
        return TrialResult(problem=str(error))
    if trial.known is not None and (problem := template_problem(template, trial.known)):
        return TrialResult(problem=problem)
    loss_mask, faults = LossMask(template, trial.special, trial.loss), {}
    for number, row in enumerate(trial.rows):
        try:
            loss_mask(row)
        except FaultError as error:
            faults[number] = error.fault
    return TrialResult(faults=faults)


def _main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    bounds, given = Bounds(**request["bounds"]), request["trial"]
    for kind, most in ((resource.RLIMIT_CPU, bounds.cpu_seconds), (resource.RLIMIT_AS, bounds.memory_bytes)):
        # macOS has no limit of the address space. The limit of processor time works there.
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
    rows = [Messages(tuple(Message(**turn) for turn in row["turns"]), row["tools"]) for row in given["rows"]]
    try:
        result = _answer(Trial(**{**given, "loss": Loss(given["loss"]), "rows": rows}))
    except MemoryError:
        result = _out_of_bounds(bounds)
    json.dump({"problem": result.problem, "faults": [[row, asdict(fault)] for row, fault in result.faults.items()]},
              sys.stdout)  # fmt: skip


if __name__ == "__main__":
    _main()
