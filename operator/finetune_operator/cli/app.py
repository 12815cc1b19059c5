"""The tree of commands. Each module of `commands` has one, and imports what it needs when it runs."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from finetune_operator.cli.commands import (
    change,
    compare,
    completion,
    init,
    local,
    logs,
    moved,
    plan,
    report,
    result,
    status,
    submit,
    top,
    validate,
    watch,
)
from finetune_operator.cli.options import Context, Kubeconfig, Namespace
from finetune_trainer.contract.version import __version__

_HELP = """Fine-tuning jobs: in the cluster of your kubeconfig, and on this machine (`local`)."""


@cache
def application() -> Any:
    """The whole command, as typer runs it."""
    app = typer.Typer(
        name="finetune",
        help=_HELP,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, function in _COMMANDS.items():
        app.command(name)(function)
    for word in moved.WORDS:
        app.command(word, hidden=True, context_settings=moved.ANYTHING)(moved.refuse)
    app.command("__complete", hidden=True)(completion.complete)
    on_this_machine = typer.Typer(help=local.HELP, rich_markup_mode=None, no_args_is_help=False)
    on_this_machine.command("run")(local.run)
    on_this_machine.command("preflight")(local.preflight)
    on_this_machine.command("plan")(local.plan)
    app.add_typer(on_this_machine, name="local")
    return typer.main.get_command(app)


_COMMANDS: dict[str, Callable[..., int]] = {
    "init": init.init,
    "validate": validate.validate,
    "plan": plan.plan,
    "submit": submit.submit,
    "watch": watch.watch,
    "status": status.status,
    "logs": logs.logs,
    "result": result.result,
    "compare": compare.compare,
    "top": top.top,
    "suspend": change.suspend,
    "resume": change.resume,
    "rerun": change.rerun,
    "report": report.report,
    "completion": completion.completion,
}
"""Words of commands in the order of the help."""


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer's callback)
    if wanted:
        print(__version__)
        raise typer.Exit


def _root(
    typed: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    given = {"namespace": namespace, "context": context, "kubeconfig": kubeconfig}
    # kubectl's users write these options before the command's word too. A command's own option wins.
    typed.default_map = {word: {name: value for name, value in given.items() if value} for word in _COMMANDS}
    if typed.invoked_subcommand is None:
        print(typed.get_help())
