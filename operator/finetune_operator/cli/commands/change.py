"""`suspend`, `resume` and `rerun`: one field of the spec each."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from finetune_operator.cli.cluster import Cluster, connect
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.options import Context, Kubeconfig, Name, Names, Namespace
from finetune_operator.cli.views.job import JobView
from finetune_operator.kube.api import FINETUNEJOBS


def suspend(
    names: Names, *, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> int:
    """Stop the pods of jobs and free their GPUs. `resume` goes on from the newest checkpoint."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    for name in names:
        job = JobView(cluster.get(FINETUNEJOBS, name))
        if job.ended:
            raise CommandError(f"{name} has ended ({job.phase}): there is nothing to suspend")
        _set(cluster, job, {"suspend": True}, "suspended", done=job.suspended)
    return 0


def resume(names: Names, *, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> int:
    """Let suspended jobs go on."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    for name in names:
        job = JobView(cluster.get(FINETUNEJOBS, name))
        _set(cluster, job, {"suspend": False}, "resumed", done=not job.suspended)
    return 0


def rerun(
    name: Name,
    *,
    token: Annotated[
        str | None, typer.Option(help="The new spec.runToken. Default: the current time.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Run an ended job once more, from step 0. Its new adapter goes to a place of its own."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    job = JobView(cluster.get(FINETUNEJOBS, name))
    if not job.ended:
        raise CommandError(f"{name} has not ended ({job.phase or 'not seen'}): suspend or delete it first")
    token = token or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if job.spec("runToken") == token:
        raise CommandError(f"{name} has run with runToken {token} already: name another --token")
    changed = _set(cluster, job, {"runToken": token}, f"runs again (runToken {token})", done=False)
    if changed.suspended:
        print(f"{name} is suspended: kubectl finetune resume {name}")
    return 0


def _set(cluster: Cluster, job: JobView, spec: dict[str, Any], words: str, *, done: bool) -> JobView:
    """Changes the spec and says so. A job that is as wanted is left as it is."""
    if done:
        print(f"finetunejob.finetune.dev/{job.name} is {words} already")
        return job
    changed = JobView(cluster.merge(FINETUNEJOBS, job.name, {"metadata": {"uid": job.uid}, "spec": spec}))
    print(f"finetunejob.finetune.dev/{job.name} {words}")
    return changed
