"""`kubectl finetune top`: who uses GPUs, and what it costs."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from finetune_operator.cli.cluster import connect
from finetune_operator.cli.commands.status import Selector
from finetune_operator.cli.options import AllNamespaces, Context, Form, Kubeconfig, Namespace, Output
from finetune_operator.cli.terminal import print_data, print_lines, say
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.top import sums_of, top_table
from finetune_operator.kube.api import FINETUNEJOBS


def top(
    *,
    ended: Annotated[bool, typer.Option("--ended", help="Jobs that have ended too.")] = False,
    selector: Selector = "",
    everywhere: AllNamespaces = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TEXT,
) -> int:
    """Show unfinished jobs by the GPUs that they use, with GPU hours and cost. The current attempt is estimated."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    found = [JobView(item) for item in cluster.objects(FINETUNEJOBS, everywhere=everywhere, labels=selector)]
    jobs = [job for job in found if ended or not job.ended]
    now = datetime.now(UTC)
    if output in (Form.JSON, Form.YAML):
        rows = [
            {
                "namespace": job.namespace,
                "name": job.name,
                "phase": job.phase,
                "gpus": job.gpus_in_use,
                "gpuHours": job.gpu_seconds(now) / 3600,
                "cost": job.cost(now),
                "costPerHour": job.cost_per_hour,
                "waitsFor": job.waits_for,
            }
            for job in jobs
        ]
        print_data({"jobs": rows, "sums": sums_of(jobs, now)}, output)
    elif jobs:
        print_lines(top_table(jobs, now, namespaces=everywhere))
    else:
        say("no unfinished FineTuneJobs" if not ended else "no FineTuneJobs")
    return 0
