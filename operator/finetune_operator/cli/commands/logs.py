"""`kubectl finetune logs`: the log of the right pod, and of the next one when it ends."""

import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from finetune_operator.api import names as api_names
from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.options import Context, Kubeconfig, Name, Namespace
from finetune_operator.cli.terminal import say
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.pod import PodView, chosen, pods_of
from finetune_operator.cli.waiting import PERIOD_SECONDS
from finetune_operator.kube.api import FINETUNEJOBS, PODS
from finetune_trainer.contract.text import printable


class Role(StrEnum):
    """Which of a job's pods."""

    TRAIN = api_names.TRAIN_ROLE
    PREFLIGHT = api_names.PREFLIGHT_ROLE


def logs(
    name: Name,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, across pods and attempts.")] = False,
    role: Annotated[
        Role | None, typer.Option(help="Pods of one stage only. Default: of the newest.", show_default=False)
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(help="Number of the attempt. Default: the newest.", show_default=False)
    ] = None,
    index: Annotated[int, typer.Option(help="Index of the pod, of a training on several nodes.")] = 0,
    all_pods: Annotated[bool, typer.Option("--all", help="The logs of all pods that are there, oldest first.")] = False,
    tail: Annotated[int | None, typer.Option(help="Newest lines only. Default: all.", show_default=False)] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="The time before each line.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Print the log of a job's newest pod. With -f, go on with the next pod until the job has ended."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    job = JobView(cluster.get(FINETUNEJOBS, name))
    query = {"timestamps": str(timestamps).lower()} | ({} if tail is None else {"tailLines": str(tail)})
    if not follow:
        pods = chosen(_pods(cluster, job), role=role, attempt=attempt, index=index, every=all_pods)
        if not pods:
            raise CommandError(_without_pods(job))
        for pod in pods:
            if len(pods) > 1:
                say(f"==> {pod.title} <==")
            _print(cluster, pod, query)
        return 0
    for pod in _one_after_another(cluster, job, role=role, attempt=attempt, index=index, every=all_pods):
        say(f"==> {pod.title} <==")
        _print(cluster, pod, query | {"follow": "true"})
    return 0


def _pods(cluster: Cluster, job: JobView) -> list[PodView]:
    labels = f"{api_names.FINETUNEJOB_UID_LABEL}={job.uid}"
    return pods_of(cluster.objects(PODS, labels=labels))


def _one_after_another(cluster: Cluster, job: JobView, **which: Any) -> Iterator[PodView]:
    """Pods with a log, each once, until the job has ended and none is left."""
    seen: set[str] = set()
    waited_for = ""
    while True:
        job = JobView(cluster.get(FINETUNEJOBS, job.name))
        ready = [pod for pod in chosen(_pods(cluster, job), **which) if pod.uid not in seen and pod.has_log]
        for pod in ready:
            seen.add(pod.uid)
            yield pod
        if ready:
            continue
        if job.ended:
            if not seen:
                raise CommandError(_without_pods(job))
            return
        if (words := job.waits_for) != waited_for and words:
            say(f"{job.name} waits for: {words}")
        waited_for = words
        time.sleep(PERIOD_SECONDS)


def _print(cluster: Cluster, pod: PodView, query: dict[str, str]) -> None:
    """Prints a pod's log. Control characters are escaped: a pod may print what moves the cursor."""
    try:
        with cluster.lines(PODS, pod.name, {"container": pod.container, **query}) as lines:
            for line in lines:
                # A bar is drawn over itself with carriage returns: its last state is the line.
                text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
                sys.stdout.write(printable(text.replace("\t", "    ")) + "\n")
                sys.stdout.flush()
    except ClusterError as error:
        if not pod.ended:
            raise
        say(f"{pod.name}: its log is gone ({error.message})")


def _without_pods(job: JobView) -> str:
    if job.ended:
        return f"{job.name} has no pods any more: its Jobs were removed, and their logs with them ({job.phase})"
    return f"{job.name} has no such pod ({job.phase or 'not seen'}){f': {job.waits_for}' if job.waits_for else ''}"
