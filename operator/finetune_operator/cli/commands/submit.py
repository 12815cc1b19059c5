"""`kubectl finetune submit`: checks the YAML here, and applies it to the cluster."""

from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.jobfile import JobFile, JobFileError
from finetune_operator.cli.jobfiles import read_job_files
from finetune_operator.cli.options import Context, Kubeconfig, Manifests, Namespace, Timeout
from finetune_operator.cli.terminal import say
from finetune_operator.cli.waiting import Deadline, await_end, report_end
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.errors import NotFound
from finetune_trainer.contract.failure import ExitCode

Force = Annotated[bool, typer.Option("--force-conflicts", help="Take fields over that another client has set.")]


def submit(
    files: Manifests,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the jobs to their ends.")] = False,
    timeout: Timeout = None,
    force: Force = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-R", help="Read folders in folders too.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Apply jobs to the cluster. With --wait the exit code says how the first failed job failed."""
    deadline = Deadline(timeout)
    jobs = read_for_cluster(files, recursive=recursive)
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    require_namespace(jobs, cluster, namespace)
    default = cluster.namespace
    for job in jobs:
        cluster.namespace = job.namespace or default
        before = existing(cluster, job)
        after = cluster.apply(FINETUNEJOBS, job.raw, force=force)
        print(f"finetunejob.finetune.dev/{job.name} {_what_happened(before, after)}")
    if not wait:
        return 0
    codes = []
    for job in jobs:
        cluster.namespace = job.namespace or default
        codes.append(report_end(await_end(cluster, job.name, deadline)))
    return next((code for code in codes if code), 0)


def read_for_cluster(files: list[Path], *, recursive: bool) -> list[JobFile]:
    """The jobs of the files, checked as the cluster would.

    Raises:
        CommandError: a file has problems; all are listed.
    """
    try:
        jobs = read_job_files(files, recursive=recursive)
    except JobFileError as error:
        raise CommandError(str(error), ExitCode.INVALID_SPEC) from None
    return jobs


def require_namespace(jobs: list[JobFile], cluster: Cluster, namespace: str | None) -> None:
    """Refuses a file that names another namespace than the command does, as kubectl does.

    Raises:
        CommandError: names both.
    """
    for job in jobs:
        if namespace and job.namespace and job.namespace != namespace:
            raise CommandError(
                f"{job.source}: {job.name} is for namespace {job.namespace}, and -n says {namespace}: remove one of "
                f"the two (context {cluster.context})"
            )


def existing(cluster: Cluster, job: JobFile) -> dict[str, Any] | None:
    """The object of that name in the cluster; None if there is none."""
    try:
        return cluster.get(FINETUNEJOBS, job.name)
    except ClusterError as error:
        if isinstance(error.cause, NotFound) and "there is no FineTuneJob" in error.message:
            return None
        raise


def _what_happened(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    """What kubectl would say: created, configured or unchanged."""
    if before is None:
        return "created"
    if before["metadata"].get("generation") == after["metadata"].get("generation"):
        return "unchanged"
    if after.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        say(f"{after['metadata']['name']} has ended already; to run it once more: kubectl finetune rerun")
    return "configured"
