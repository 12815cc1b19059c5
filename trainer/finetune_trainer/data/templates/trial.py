"""Rendering the first rows in a process of its own, which may take only so much time and memory.

A template is a program: it can loop for ever, or write gigabytes with one multiplication, which no sandbox for Python
code prevents. Preflight therefore runs it where the kernel ends it. `python -m finetune_trainer.data.templates.trial`
is that process: a request as JSON on standard input, the result as JSON on standard output.
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
    """What the process may take.

    Attributes:
        cpu_seconds: processor time.
        wall_seconds: time until it is given up, for a machine that has no processor to spare.
        memory_bytes: address space, with Python's own.
    """

    cpu_seconds: int = 20
    wall_seconds: int = 120
    memory_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is rendered.

    Attributes:
        source: the template's Jinja text.
        special_tokens: its variables (`bos_token` …).
        special: the tokenizer's special tokens.
        known: every token that the tokenizer finds whole; None leaves that unchecked.
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
    """How it went.

    Attributes:
        problem: what is wrong with the template itself, as the end of a sentence that names it.
        faults: what is wrong with rows, by their number from 0.
    """

    problem: str | None = None
    faults: Mapping[int, Fault] = field(default_factory=dict)


def try_template(trial: Trial, bounds: Bounds | None = None) -> TrialResult:
    """Renders the rows in another process."""
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
        # macOS knows no bound of the address space; the other one holds there too.
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
