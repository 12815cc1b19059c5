"""`kubectl finetune report`: a support bundle about one job, without secrets."""

import io
import json
import platform
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from finetune_operator.api import names as api_names
from finetune_operator.cli.cluster import Cluster, ClusterError, connect
from finetune_operator.cli.commands.status import CORE_EVENTS
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.options import Context, Kubeconfig, Name, Namespace
from finetune_operator.cli.terminal import say
from finetune_operator.cli.views.bundle import text_without_secrets, without_secrets
from finetune_operator.cli.views.event import events_of
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.pod import pods_of
from finetune_operator.cli.views.screen import screen
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS
from finetune_trainer.contract.text import readable
from finetune_trainer.contract.version import __version__

_TAIL = "2000"


def report(
    name: Name,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="The archive. Default: NAME-report.tar.gz.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> int:
    """Write an archive with the job, its Jobs, pods, events and logs, for somebody who helps. Secrets are left out."""
    target = to or Path(f"{name}-report.tar.gz")
    if target.exists():
        raise CommandError(f"{target} is there already: name another file with --to")
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    job = JobView(cluster.get(FINETUNEJOBS, name))
    files = _files(cluster, job)
    try:
        _write(target, f"{name}-report", files)
    except OSError as error:
        raise CommandError(f"{target}: {error.strerror}") from None
    say(
        f"{target}: {', '.join(files)}\nLook through it before you send it: it has names, addresses and the pods' logs."
    )
    return 0


def _files(cluster: Cluster, job: JobView) -> dict[str, str]:
    """The files of the bundle by name. What cannot be read is said in them."""
    labels = f"{api_names.FINETUNEJOB_UID_LABEL}={job.uid}"
    pods = _asked(lambda: cluster.objects(PODS, labels=labels))
    events = _asked(lambda: cluster.objects(CORE_EVENTS, fields=f"involvedObject.uid={job.uid}"))
    found = {
        "versions.txt": _versions(cluster),
        "job.yaml": _yaml(job.raw),
        "jobs.yaml": _yaml(_asked(lambda: cluster.objects(JOBS, labels=labels))),
        "pods.yaml": _yaml(pods),
        "events.yaml": _yaml(events),
    }
    seen = events_of(events) if isinstance(events, list) else []
    lines = [line.plain for line in screen(job, seen, datetime.now(UTC))]
    found["status.txt"] = text_without_secrets("\n".join(lines)) + "\n"
    for pod in pods_of(pods) if isinstance(pods, list) else []:
        query = {"container": pod.container, "tailLines": _TAIL, "timestamps": "true"}
        found[f"logs/{pod.name}.txt"] = _log(cluster, pod.name, query)
    return found


def _asked(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | str:
    """The answer, or why there is none."""
    try:
        return ask()
    except ClusterError as error:
        return error.message


def _versions(cluster: Cluster) -> str:
    try:
        server = cluster.version()
    except ClusterError as error:
        server = error.message
    lines = [f"finetune {__version__}", f"Kubernetes {server}", f"Python {sys.version.split()[0]}", platform.platform()]
    return "\n".join(lines) + "\n"


def _log(cluster: Cluster, pod: str, query: dict[str, str]) -> str:
    try:
        with cluster.lines(PODS, pod, query) as lines:
            text = "\n".join(line.decode("utf-8", "replace") for line in lines)
    except ClusterError as error:
        text = error.message
    return readable(text_without_secrets(text)) + "\n"


def _yaml(value: Any) -> str:
    # Through JSON: no anchors for values that are in it twice.
    return str(yaml.safe_dump(json.loads(json.dumps(without_secrets(value))), sort_keys=False, allow_unicode=True))


def _write(target: Path, folder: str, files: dict[str, str]) -> None:
    """Writes the archive. A file that cannot be written whole is not left."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            entry.mtime = int(datetime.now(UTC).timestamp())
            archive.addfile(entry, io.BytesIO(data))
    part = target.with_name(f".{target.name}.part")
    try:
        part.touch(mode=0o600)
        part.write_bytes(content.getvalue())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
