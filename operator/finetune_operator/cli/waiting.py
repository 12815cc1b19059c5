"""Waits for a job to end, and shows it meanwhile: a bar on a terminal, a line for each change elsewhere."""

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from finetune_operator.cli.cluster import Cluster, ClusterError
from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.cli.terminal import say
from finetune_operator.cli.views.duration import seconds_of
from finetune_operator.cli.views.follow import Told, end_line, news
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.screen import loss_line, progress_line
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.errors import NotFound

PERIOD_SECONDS = 2.0
"""Between two looks at the job. Its status changes at most every ten seconds."""


class Deadline:
    """The end of a wait.

    Args:
        text: how long it may take, for example `30m`; None for ever.

    Raises:
        CommandError: the text is no duration.
    """

    def __init__(self, text: str | None) -> None:
        try:
            self._at = None if text is None else time.monotonic() + seconds_of(text)
        except ValueError as error:
            raise CommandError(f"--timeout: {error}", Exit.USAGE) from None

    @property
    def over(self) -> bool:
        """Whether the wait is over."""
        return self._at is not None and time.monotonic() >= self._at


def await_end(cluster: Cluster, name: str, deadline: Deadline) -> JobView:
    """Waits until the job has ended, whatever happens to the connection, and shows what it does.

    Raises:
        CommandError: the job is gone or another one, a request is refused, or the time is over (124).
    """
    console = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
    told = Told()
    uid = ""
    outage = ""
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            try:
                job = JobView(cluster.get(FINETUNEJOBS, name))
                outage = ""
            except ClusterError as error:
                if isinstance(error.cause, NotFound) and uid:
                    raise CommandError(f"{name} was deleted while it was waited for") from None
                if not error.passes or not uid:
                    raise
                if not outage:
                    console.print(error.message)
                outage = error.message
            else:
                if uid not in ("", job.uid):
                    raise CommandError(f"{name} was deleted, and another job has its name now")
                uid = job.uid
                for line in news(job, told, steps=not console.is_terminal):
                    console.print(f"{name}: {line}")
                if job.ended:
                    return job
                if console.is_terminal:
                    live.update(_bar(job), refresh=True)
            if deadline.over:
                raise CommandError(f"{name} has not ended ({job.phase or 'not seen'}); it goes on", Exit.TIMED_OUT)
            time.sleep(PERIOD_SECONDS)


def report_end(job: JobView) -> int:
    """Says how the job ended. Returns the exit code: 0, or that of the reason it failed for."""
    say(end_line(job))
    return job.exit_code


def _bar(job: JobView) -> Text:
    """The last lines of the terminal."""
    losses = loss_line(job)
    parts = [f"{job.name}: {job.phase or 'not seen'}", progress_line(job), f"loss {losses}" if losses else ""]
    if job.waits_for:
        parts.append(f"waits for: {job.waits_for}")
    return Text("\n".join(part for part in parts if part))
