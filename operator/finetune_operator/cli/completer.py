"""What may come next on a command line: words, options, names of jobs. A shell or kubectl asks for it.

The answer is cobra's, which kubectl expects of `kubectl_complete-finetune`: a candidate a line, and a last line that
says whether file names may come too.
"""

import sys
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from finetune_operator.cli.errors import CommandError

NO_FILES, FILES = ":4", ":0"
_JOBS = ("NAME", "NAME...", "[NAME]...", "A", "B")
_WHERE = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}

Jobs = Callable[[dict[str, str]], Sequence[str]]
"""Returns the names of the jobs at a place: namespace, context, kubeconfig."""


def main() -> int:
    """`kubectl_complete-finetune`: completes kubectl's command line."""
    from finetune_operator.cli.app import application

    print("\n".join(completions(application(), sys.argv[1:], names_of_jobs)))
    return 0


def completions(command: Any, words: Sequence[str], jobs: Jobs) -> list[str]:
    """The candidates for the last word, and the directive.

    Args:
        command: the whole command.
        words: the words after the program's name; the last one may be empty or incomplete.
        jobs: asked for names where a job's name is due.
    """
    *before, last = words or [""]
    options = _options(command)
    place: dict[str, str] = {}
    positional, pending = 0, None
    for word in before:
        if pending is not None:
            if pending in _WHERE:
                place[_WHERE[pending]] = word
            pending = None
        elif word.startswith("-") and len(word) > 1:
            name, given, value = word.partition("=")
            if given and name in _WHERE:
                place[_WHERE[name]] = value
            elif not given and name in options and not options[name].is_flag:
                pending = name
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
            options = _options(command)
        else:
            positional += 1
    if pending is not None:
        return _of_option(options[pending], pending, last)
    if last.startswith("-"):
        return [*sorted(name for name in options if name.startswith(last)), NO_FILES]
    if hasattr(command, "commands"):
        shown = (name for name, item in command.commands.items() if not item.hidden)
        return [*(name for name in shown if name.startswith(last)), NO_FILES]
    arguments = [item for item in command.params if not item.opts[0].startswith("-")]
    due = arguments[min(positional, len(arguments) - 1)] if arguments else None
    if due is None or due.metavar not in _JOBS:
        return [FILES if due is not None else NO_FILES]
    return [*(name for name in jobs(place) if name.startswith(last)), NO_FILES]


def _options(command: Any) -> dict[str, Any]:
    return {name: item for item in command.params for name in item.opts if name.startswith("-")}


def _of_option(option: Any, name: str, last: str) -> list[str]:
    """The values of an option."""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [*(str(item.value) for item in kind if str(item.value).startswith(last)), NO_FILES]
    return [FILES if name in ("--kubeconfig", "--to", "--work") else NO_FILES]


def names_of_jobs(place: dict[str, str]) -> list[str]:
    """The names of the jobs at a place; none when the cluster cannot be asked."""
    from finetune_operator.cli.cluster import connect
    from finetune_operator.kube.api import FINETUNEJOBS

    try:
        return [item["metadata"]["name"] for item in connect(**place).objects(FINETUNEJOBS)]
    except CommandError:
        return []
