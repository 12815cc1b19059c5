"""`kubectl finetune plan`: what would happen, without doing it."""

from typing import Annotated, Any

import typer

from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.commands.submit import existing, read_for_cluster, require_namespace
from finetune_operator.cli.jobfile import JobFile
from finetune_operator.cli.options import Context, Kubeconfig, Manifests, Namespace
from finetune_operator.cli.terminal import print_lines, say
from finetune_operator.cli.views.changes import changes
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.plan import plan_lines
from finetune_operator.cli.views.table import table
from finetune_operator.kube.api import FINETUNEJOBS


def plan(
    files: Manifests,
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Read folders in folders too.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Ask the API server what `submit` would do, and show pods, GPUs, settings and changes. Nothing is stored."""
    jobs = read_for_cluster(files, recursive=recursive)
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    require_namespace(jobs, cluster, namespace)
    default, refused = cluster.namespace, 0
    for number, job in enumerate(jobs):
        cluster.namespace = job.namespace or default
        if number:
            print()
        refused += not _plan(cluster, job)
    return int(refused > 0)


def _plan(cluster: Cluster, job: JobFile) -> bool:
    """Shows the plan of one job. Returns whether the API server would take it."""
    before = existing(cluster, job)
    try:
        after, refusal = cluster.apply(FINETUNEJOBS, job.raw, force=True, dry_run=True), ""
    except ClusterError as error:
        after, refusal = {}, error.message
    if refusal:
        say(f"{job.name}: submit would be refused: {refusal}")
    if before is None:
        if not refusal:
            print_lines(
                [f"{job.name} would be created in namespace {cluster.namespace}", *plan_lines(job.name, job.spec)]
            )
        return not refusal
    print_lines(_compared(job, before, after or {**before, "spec": {**before["spec"], **job.raw["spec"]}}))
    return not refusal


def _compared(job: JobFile, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What would change in the job that is there."""
    view = JobView(before)
    there = f"{job.name} is there ({view.phase or 'not seen'})"
    found = changes(before, after)
    if not found:
        return [f"{there}, and the file changes nothing"]
    rows = [
        ["SETTING", "NOW", "FILE", "ACTS"],
        *([item.path, item.before or "-", item.after or "-", item.acts] for item in found),
    ]
    ended = view.ended and not any(item.path == "runToken" for item in found)
    more = [f"it has ended, so nothing runs: kubectl finetune rerun {job.name}"] if ended else []
    return [f"{there}; the file changes", *(f"  {line}" for line in table(rows)), *more]
