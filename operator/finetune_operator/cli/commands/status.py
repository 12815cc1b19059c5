"""`kubectl finetune status`: the list of jobs, or everything about one."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.errors import CommandError, Exit
from finetune_operator.cli.options import AllNamespaces, Context, Form, Kubeconfig, Namespace, Output
from finetune_operator.cli.terminal import print_lines, print_objects, say
from finetune_operator.cli.views.event import EventView, events_of
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.screen import screen
from finetune_operator.cli.views.table import jobs_table
from finetune_operator.kube.api import FINETUNEJOBS, Resource

CORE_EVENTS = Resource(group="", version="v1", plural="events")

Selected = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Jobs. Default: all.", show_default=False)
]
Selector = Annotated[
    str, typer.Option("--selector", "-l", help="Label selector, for example team=a.", show_default=False)
]


def status(
    names: Selected = None,
    *,
    selector: Selector = "",
    everywhere: AllNamespaces = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TEXT,
) -> int:
    """List jobs, or show one on a screen: progress, what it waits for, attempts, events."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    jobs = selected(cluster, names or [], selector=selector, everywhere=everywhere)
    if output in (Form.JSON, Form.YAML):
        print_objects([job.raw for job in jobs], output, one=len(names or []) == 1)
    elif len(names or []) == 1 and output is Form.TEXT:
        print_lines(screen(jobs[0], _events(cluster, jobs[0]), datetime.now(UTC)))
    elif jobs:
        print_lines(jobs_table(jobs, datetime.now(UTC), namespaces=everywhere, wide=output is Form.WIDE))
    else:
        say("no FineTuneJobs" if everywhere else f"no FineTuneJobs in namespace {cluster.namespace}")
    return 0


def selected(cluster: Cluster, names: list[str], *, selector: str = "", everywhere: bool = False) -> list[JobView]:
    """The jobs of these names, or all that the selector selects.

    Raises:
        CommandError: there is no such job, or names and a selection are both given.
    """
    if names and (selector or everywhere):
        raise CommandError("name jobs, or select them with --selector or --all-namespaces; not both", Exit.USAGE)
    if names:
        return [JobView(cluster.get(FINETUNEJOBS, name)) for name in names]
    return [JobView(item) for item in cluster.objects(FINETUNEJOBS, everywhere=everywhere, labels=selector)]


def _events(cluster: Cluster, job: JobView) -> list[EventView]:
    """The events about a job; none where the user may not read them."""
    try:
        return events_of(cluster.objects(CORE_EVENTS, fields=f"involvedObject.uid={job.uid}"))
    except ClusterError as error:
        say(f"without events: {error.message}")
        return []
