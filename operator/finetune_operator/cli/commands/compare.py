"""`kubectl finetune compare`: two jobs side by side."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from finetune_operator.cli.cluster import connect
from finetune_operator.cli.options import Context, Form, Kubeconfig, Namespace, Output
from finetune_operator.cli.terminal import print_data, print_lines
from finetune_operator.cli.views.compare import Row, different_settings, results
from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.table import table
from finetune_operator.kube.api import FINETUNEJOBS

One = Annotated[str, typer.Argument(metavar="A", help="Name of a FineTuneJob.", show_default=False)]
Other = Annotated[str, typer.Argument(metavar="B", help="Name of another one.", show_default=False)]


def compare(
    one: One,
    other: Other,
    *,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: Output = Form.TEXT,
) -> int:
    """Show the settings in which two jobs differ, and their losses, times and costs side by side."""
    cluster = connect(namespace=namespace, context=context, kubeconfig=kubeconfig)
    first, second = (JobView(cluster.get(FINETUNEJOBS, name)) for name in (one, other))
    different, came_out = different_settings(first, second), results(first, second, datetime.now(UTC))
    if output in (Form.JSON, Form.YAML):
        parts = {"settings": different, "results": came_out}
        print_data({name: {row[0]: list(row[1:]) for row in rows} for name, rows in parts.items()}, output)
        return 0
    print_lines(_side_by_side("SETTING", different, first, second) if different else ["the settings are the same"])
    print_lines(["", *_side_by_side("RESULT", came_out, first, second)])
    return 0


def _side_by_side(head: str, rows: list[Row], first: JobView, second: JobView) -> list[str]:
    return table([(head, first.name, second.name), *((what, a or "-", b or "-") for what, a, b in rows)])
