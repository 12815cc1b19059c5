"""`kubectl finetune result`: where the adapter is, the adapter itself, and how it is served."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from finetune_operator.cli.cluster import connect
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.options import Context, Form, Kubeconfig, Name, Namespace, Output
from finetune_operator.cli.terminal import print_data, print_lines, say
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.serving import Server, serving
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_trainer.contract.recipe.lora import LoraSpec
from finetune_trainer.contract.serving import serving_warning
from finetune_trainer.export.base_model import loading_code


def result(
    name: Name,
    *,
    to: Annotated[
        Path | None, typer.Option("--to", help="Download into this new folder, and verify.", show_default=False)
    ] = None,
    merged: Annotated[bool, typer.Option("--merged", help="The merged model instead of the adapter.")] = False,
    serve: Annotated[
        Server | None,
        typer.Option("--serve", help="Print what serves the adapter: commands or YAML.", show_default=False),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="The S3 server, as this machine reaches it. Default: the job's.", show_default=False),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TEXT,
) -> int:
    """Show where a job's adapter is; --to downloads and verifies it, --serve prints how to serve it."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    job = JobView(cluster.get(FINETUNEJOBS, name))
    if not job.output("uri"):
        why = f": {job.failure[1]}" if job.failure else f"; kubectl finetune watch {name}" if not job.ended else ""
        raise CommandError(f"{name} has no adapter ({job.phase or 'not seen'}){why}")
    if serve is not None:
        _warn(job, serve)
        print(serving(job, serve))
    elif to is not None:
        _download(job, to, merged=merged, endpoint=endpoint)
    elif output in (Form.JSON, Form.YAML):
        print_data(job.raw["status"]["output"], output)
    else:
        print_lines(_facts(job))
    return 0


def _facts(job: JobView) -> list[str]:
    rows = [
        ("Adapter", job.output("uri")),
        ("Merged", job.output("mergedUri")),
        ("Base model", job.output("baseModel")),
        ("Rank", job.output("rank")),
        ("Bytes", f"{int(job.output('sizeBytes') or 0):,}"),
        ("Manifest", job.output("manifestUri")),
        ("Digest", job.output("digest")),
        *((f"  {name}", value) for name, value in job.metrics.items()),
    ]
    lines = [f"{label + ':':<13}{text}" for label, text in rows if text]
    again = f"kubectl finetune result {job.name}"
    return [*lines, "", f"{again} --to {job.name}", f"{again} --serve vllm"]


def _warn(job: JobView, server: Server) -> None:
    """Says that the server does not load this kind of adapter, where the recipe tells."""
    if server is Server.LLAMACPP:
        return
    try:
        lora = LoraSpec.model_validate(job.raw["spec"].get("lora") or {})
    except ValidationError:
        return
    if warning := serving_warning(lora):
        raise CommandError(warning)


def _download(job: JobView, to: Path, *, merged: bool, endpoint: str | None) -> None:
    from finetune_operator.cli.download import Output

    found = Output(job, endpoint)
    folder = found.manifest.merged if merged else found.manifest.adapter
    total = sum(file.size for file in found.manifest.files if folder and file.path.startswith(f"{folder}/"))
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        new = found.fetch(to, merged=merged, on_bytes=lambda count: progress.advance(task, count))
    what = "merged model" if merged else "adapter"
    say(f"{to}: the {what}, verified against the manifest" + ("" if new else "; it was there already"))
    if merged:
        folder = json.dumps(str(to))
        print(
            f"from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained({folder})"
        )
    else:
        print(loading_code(found.manifest.base_model, str(to), found.manifest.base_model_revision))
