"""The screen of one job: what it is, how far it is, what it waits for, its attempts and events."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.text import Text

from finetune_operator.api.reasons import Phase
from finetune_operator.cli.views.duration import ago, duration, time_of
from finetune_operator.cli.views.event import EventView
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.table import table

COLOURS = {
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "red",
    Phase.RUNNING: "cyan",
    Phase.RETRYING: "yellow",
    Phase.SUSPENDED: "yellow",
}
_LABEL = 12
_MOST_EVENTS = 10
_BAR = 30


def screen(job: JobView, events: Sequence[EventView], now: datetime) -> list[Text]:
    """The lines of the screen.

    Args:
        job: the job.
        events: events about it, oldest first.
        now: the current time.
    """
    lines = [Text.assemble((job.name, "bold"), f" in {job.namespace}"), Text()]
    lines += [_labelled(label, text, style) for label, text, style in _facts(job, now) if text]
    if job.attempts:
        lines += [Text(), Text("Attempts", "bold"), *map(Text, _attempts(job, now))]
    if events:
        lines += [Text(), Text("Events", "bold"), *map(Text, _events(events, now))]
    return lines


def _labelled(label: str, text: str, style: str) -> Text:
    return Text.assemble((f"{label + ':':<{_LABEL}}", "dim"), (text.replace("\n", "\n" + " " * _LABEL), style))


def _facts(job: JobView, now: datetime) -> Iterator[tuple[str, str, str]]:
    since = f", {ago(job.in_phase_since, now)}" if job.in_phase_since else ""
    colour = next((style for phase, style in COLOURS.items() if phase == job.phase), "")
    yield "Status", f"{job.phase or 'not seen'}{since}{f' ({job.reason})' if job.reason else ''}", colour
    yield "Waits for", job.waits_for, "yellow"
    if job.failure is not None:
        yield "Failure", f"{job.failure[0]}: {job.failure[1]}", "red"
    yield "Progress", progress_line(job), ""
    yield "Loss", loss_line(job), ""
    yield "Checkpoint", _checkpoint(job, now), ""
    yield "Model", job.spec("model.uri"), ""
    yield "Data", _data(job), ""
    yield "GPUs", _gpus(job, now), ""
    if job.finished and job.started:
        yield "Took", duration((job.finished - job.started) / timedelta(seconds=1)), ""
    yield "Age", ago(job.created, now), ""
    yield "Pod", job.pod if not job.ended else "", ""
    yield "Adapter", job.output("uri"), "green"
    yield "Merged", job.output("mergedUri"), "green"
    yield "Metrics", ", ".join(f"{name} {value}" for name, value in job.metrics.items()), ""
    if job.succeeded:
        yield "Next", f"kubectl finetune result {job.name}", "dim"


def progress_line(job: JobView) -> str:
    """A bar, the steps, the speed and the time that is left."""
    if job.steps is None:
        return job.progress("display") or job.progress("stage")
    done, total = job.steps
    filled = _BAR * done // total
    parts = [f"[{'#' * filled}{'-' * (_BAR - filled)}] {100 * done // total}% {done}/{total}"]
    if job.progress("stage"):
        parts.append(job.progress("stage"))
    if (rate := job.count("tokensPerSecond")) is not None:
        parts.append(f"{rate:,} tokens/s")
    if job.eta_seconds is not None:
        parts.append(f"{duration(job.eta_seconds)} left")
    return ", ".join(parts)


def loss_line(job: JobView) -> str:
    """The losses, the learning rate and, of method dpo, the rewards."""
    names = {
        "loss": "",
        "evalLoss": "validation ",
        "rewardMargin": "reward margin ",
        "rewardAccuracy": "reward accuracy ",
        "learningRate": "learning rate ",
        "epoch": "epoch ",
    }
    return ", ".join(f"{words}{job.progress(field)}" for field, words in names.items() if job.progress(field))


def _checkpoint(job: JobView, now: datetime) -> str:
    step, time = job.progress("checkpointStep"), job.progress("checkpointTime")
    if not step or job.ended:
        return ""
    age = ago(time_of(time), now)
    resumed = job.progress("resumedFromStep")
    return f"step {step}{f', {age} ago' if age else ''}{f'; resumed from step {resumed}' if resumed else ''}"


def _data(job: JobView) -> str:
    found = job.preflight
    parts = [job.spec("dataset.uri")]
    for field, word in (("rows", "rows"), ("tokens", "tokens an epoch"), ("truncated", "rows cut")):
        if found.get(field, "0") not in ("0", ""):
            parts.append(f"{int(found[field]):,} {word}" if found[field].isdecimal() else "")
    return ", ".join(part for part in parts if part)


def _gpus(job: JobView, now: datetime) -> str:
    if job.gpus is None:
        return ""
    hours = job.gpu_seconds(now) / 3600
    cost = job.cost(now)
    return f"{job.gpus}{f', {hours:.2f} GPU hours' if hours else ''}{f', cost {cost:.2f}' if cost is not None else ''}"


def _attempts(job: JobView, now: datetime) -> list[str]:
    rows = [["NO.", "STARTED", "TOOK", "ENDED WITH", "EXIT", "MESSAGE"]]
    for attempt in job.attempts:
        took = "" if attempt.start is None else duration(((attempt.end or now) - attempt.start) / timedelta(seconds=1))
        reason = attempt.reason + ("" if attempt.counted or not attempt.end else " (not counted)")
        rows.append(
            [
                str(attempt.number),
                f"{ago(attempt.start, now)} ago" if attempt.start else "",
                took,
                reason if attempt.end else "(runs)",
                "" if attempt.exit_code is None else str(attempt.exit_code),
                attempt.message,
            ]
        )
    return [f"  {line}" for line in table(rows)]


def _events(events: Sequence[EventView], now: datetime) -> list[str]:
    rows = [["AGE", "TYPE", "REASON", "MESSAGE"]]
    for event in events[-_MOST_EVENTS:]:
        times = f" (x{event.count})" if event.count > 1 else ""
        rows.append([f"{ago(event.last, now)}{times}", event.type, event.reason, event.message])
    lines = [f"  {line}" for line in table(rows)]
    left = len(events) - _MOST_EVENTS
    return [*lines, f"  and {left} earlier"] if left > 0 else lines
