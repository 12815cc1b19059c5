"""Rendering the first rows in a process of its own, with limits on time and memory for each row.

A template is a program: it can loop for ever, or write gigabytes with one multiplication, which no sandbox for Python
code prevents. Preflight therefore runs it where the kernel ends it. `python -m finetune_trainer.data.templates.trial`
is that process: a request as JSON on standard input. It prints a line of JSON for the template, and one for each row.
When the kernel has ended the process, the missing line says which row is to blame.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.templates.probe import template_problem
from finetune_trainer.data.tokenization.loss_mask import LossMask


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of the process.

    Attributes:
        cpu_seconds: processor time of one row.
        wall_seconds: time of one row, for a machine that has no processor to spare.
        memory_bytes: address space, with Python's own.
        sample_cpu_seconds: processor time of all rows. When it is over, the rest is not tried; that is no fault.
    """

    cpu_seconds: int = 20
    wall_seconds: int = 120
    memory_bytes: int = 512 << 20
    sample_cpu_seconds: int = 60


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
        problem: what is wrong with the template itself, as the end of a sentence that names it.
        rows: how many rows were tried.
        faults: what is wrong with rows, by their number from 0.
    """

    problem: str | None = None
    rows: int = 0
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
    ended = subprocess.run(command, input=request.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # noqa: PLW1510 (how it ended is looked at)
    lines = [json.loads(line) for line in ended.stdout.splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines:
        took = f"took more than {limits.cpu_seconds} seconds or {limits.memory_bytes >> 20} MiB"
        return TrialResult(problem=f"{took} to render one question and its answer: it loops, or writes far too much")
    (problem, *answers), whole = lines, ended.returncode == 0
    if problem is not None:
        return TrialResult(problem=problem)
    faults = {row: Fault(**{**fault, "kind": ProblemKind(fault["kind"])}) for row, fault in enumerate(answers) if fault}
    if not whole:
        faults[len(answers)] = _too_much(limits)
    return TrialResult(rows=len(answers) + (not whole), faults=faults)


def _too_much(bounds: Bounds) -> Fault:
    most = f"{bounds.cpu_seconds} seconds or {bounds.memory_bytes >> 20} MiB"
    return Fault(
        kind=ProblemKind.TEMPLATE,
        found=f"a conversation that takes the chat template more than {most} to render",
        expected="one that it renders",
        remedy="change the row, or set another dataset.chatTemplate",
    )


def _answers(trial: Trial, bounds: Bounds) -> Iterator[object]:
    """What is printed: the template's problem or null, then each row's fault or null."""
    try:
        template = ChatTemplate(trial.source, trial.special_tokens, bounds.cpu_seconds)
        problem = template_problem(template, trial.known or ())
    except ValueError as error:
        yield str(error)
        return
    # Without the tokens it is looked at only whether rendering ends.
    if trial.known is None:
        problem = None
    yield problem
    if problem is not None:
        return
    loss_mask = LossMask(template, trial.special, trial.loss)
    for row in trial.rows:
        if time.process_time() > bounds.sample_cpu_seconds:
            return
        _limit_next_row(bounds)
        try:
            loss_mask(row)
        except MemoryError:
            yield asdict(_too_much(bounds))
            return
        except FaultError as error:
            yield asdict(error.fault)
            if template.loops:
                return
        else:
            yield None


def _limit_next_row(bounds: Bounds) -> None:
    """The kernel ends the process when the next row takes longer."""
    # macOS knows no limit of the address space; the other limits hold there too.
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + bounds.cpu_seconds, most))
    signal.alarm(bounds.wall_seconds)


def _main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    bounds, given = Bounds(**request["bounds"]), request["trial"]
    for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, bounds.memory_bytes)):
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))
    rows = [Messages(tuple(Message(**turn) for turn in row["turns"]), row["tools"]) for row in given["rows"]]
    _limit_next_row(bounds)
    with suppress(MemoryError):
        for answer in _answers(Trial(**{**given, "loss": Loss(given["loss"]), "rows": rows}), bounds):
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
