"""Tables of FineTuneJobs, in the columns and the form of `kubectl get`."""

from collections.abc import Callable, Sequence
from datetime import datetime

from finetune_operator.cli.views.duration import ago, duration
from finetune_operator.cli.views.job import JobView

_GAP = "   "


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first row is its head. Columns are as wide as their widest cell, which is on one line."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


Column = tuple[str, Callable[[JobView, datetime], str]]

_FIRST: tuple[Column, ...] = (
    ("NAME", lambda job, _: job.name),
    ("STATUS", lambda job, _: job.phase),
    ("PROGRESS", lambda job, _: job.progress("display")),
    ("LOSS", lambda job, _: job.progress("loss")),
    ("ETA", lambda job, _: "" if job.eta_seconds is None else duration(job.eta_seconds)),
    ("RESTARTS", lambda job, _: str(job.restarts)),
    ("GPUS", lambda job, _: "" if job.gpus is None else str(job.gpus)),
    ("AGE", lambda job, now: ago(job.created, now)),
)
_WIDE: tuple[Column, ...] = (
    ("REASON", lambda job, _: job.reason),
    ("WAITS FOR", lambda job, _: job.waits_for),
    ("MODEL", lambda job, _: job.spec("model.uri")),
    ("OUTPUT", lambda job, _: job.output("uri")),
)
NAMESPACE: Column = ("NAMESPACE", lambda job, _: job.namespace)


def jobs_table(jobs: Sequence[JobView], now: datetime, *, namespaces: bool = False, wide: bool = False) -> list[str]:
    """The table of some jobs, sorted by namespace and name."""
    columns = ((NAMESPACE,) if namespaces else ()) + _FIRST + (_WIDE if wide else ())
    return columns_table(columns, sorted(jobs, key=lambda job: (job.namespace, job.name)), now)


def columns_table(columns: Sequence[Column], jobs: Sequence[JobView], now: datetime) -> list[str]:
    """The table with these columns."""
    head = [name for name, _ in columns]
    return table([head, *([cell(job, now) for _, cell in columns] for job in jobs)])
