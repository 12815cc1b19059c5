"""Options that several commands have, named as kubectl names them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """Forms of what is printed."""

    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace. Default: that of the context.", show_default=False),
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig. Default: the current one.", show_default=False),
]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="The kubeconfig. Default: as kubectl finds it.", show_default=False)
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Jobs of all namespaces.")]
Output = Annotated[Form, typer.Option("--output", "-o", help="Form of what is printed.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the FineTuneJob.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of FineTuneJobs.", show_default=False)]
Manifests = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="Files or folders with FineTuneJobs; - is standard input.", show_default=False
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", help="Longest wait, for example 90s, 30m or 24h. Default: none.", show_default=False),
]
