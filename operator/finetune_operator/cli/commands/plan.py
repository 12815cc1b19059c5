"""`kubectl finetune plan`: what would happen, without doing it."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from finetune_operator.api.finetunejob import Held
from finetune_operator.api.profile import Profile, profile_of
from finetune_operator.api.resolution import choose, record_of
from finetune_operator.api.spec import ProfileKind
from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.commands.submit import existing, read_for_cluster, require_namespace
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.jobfile import JobFile, JobFileError
from finetune_operator.cli.options import Context, Kubeconfig, Manifests, Namespace
from finetune_operator.cli.profiles import resolved
from finetune_operator.cli.terminal import print_lines, say
from finetune_operator.cli.views.changes import changes
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.plan import plan_lines
from finetune_operator.cli.views.settings import spec_lines
from finetune_operator.cli.views.table import table
from finetune_operator.kube.api import CLUSTER_PROFILES, FINETUNEJOBS, PROFILES, Resource
from finetune_operator.kube.errors import NotFound
from finetune_trainer.contract.failure import ExitCode


def plan(
    files: Manifests,
    *,
    settings: Annotated[
        bool, typer.Option("--settings", help="Show every setting, and which profile it comes from.")
    ] = False,
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
        refused += not _plan(cluster, job, settings=settings)
    return int(refused > 0)


def _planned(cluster: Cluster, job: JobFile) -> JobFile:
    """The job with the profiles that it would begin with.

    Raises:
        CommandError: the operator would refuse it, or hold it.
    """
    profiles = [*_profiles(cluster, PROFILES, ProfileKind.NAMESPACED)]
    profiles += _profiles(cluster, CLUSTER_PROFILES, ProfileKind.CLUSTER)
    chosen = choose(profiles, job.spec.profile_ref)
    if isinstance(chosen, Held):
        return _waiting(job, chosen)
    record = record_of(chosen)
    if isinstance(record, Held):
        return _waiting(job, record)
    try:
        found = resolved(job, record, local=False)
    except JobFileError as error:
        raise CommandError(f"the operator would refuse it: {error}", ExitCode.INVALID_SPEC) from None
    return replace(job, spec=found.spec, profiles=chosen, profile=record)


def _waiting(job: JobFile, held: Held) -> JobFile:
    """Says why a job would wait; its plan is then without profiles."""
    say(f"{job.name} would wait: {held.message}")
    return job


def _profiles(cluster: Cluster, resource: Resource, kind: ProfileKind) -> list[Profile]:
    """The profiles of a kind. Who may not read them gets a plan without."""
    try:
        return [profile_of(raw, kind) for raw in cluster.objects(resource, everywhere=kind is ProfileKind.CLUSTER)]
    except ClusterError as error:
        if not isinstance(error.cause, NotFound):
            say(f"without any {kind}: {error.message}")
        return []


def _plan(cluster: Cluster, job: JobFile, *, settings: bool) -> bool:
    """Shows the plan of one job. Returns whether the API server would take it."""
    before = existing(cluster, job)
    try:
        after, refusal = cluster.apply(FINETUNEJOBS, job.raw, force=True, dry_run=True), ""
    except ClusterError as error:
        after, refusal = {}, error.message
    if refusal:
        say(f"{job.name}: submit would be refused: {refusal}")
    if before is None:
        if refusal:
            return False
        planned = _planned(cluster, job)
        print_lines(
            [
                f"{job.name} would be created in namespace {cluster.namespace}",
                *plan_lines(planned.name, planned.spec),
                *(f"{f'Profile {number}:':<13}{item}" for number, item in enumerate(planned.profiles, 1)),
            ]
        )
        if settings:
            print_lines(["", *spec_lines(planned.raw["spec"], planned.spec, planned.profiles, planned.profile)])
        return True
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
