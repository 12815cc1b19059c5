"""Prints: texts to people, objects to programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from finetune_operator.api import names
from finetune_operator.cli.options import Form


def console() -> Console:
    """The terminal, or the file or pipe that standard output is. Texts of the cluster have no markup for it."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def print_lines(lines: Iterable[str | Text]) -> None:
    """Prints lines, in colour on a terminal."""
    out = console()
    for line in lines:
        out.print(line, soft_wrap=True)


def print_objects(objects: Sequence[Mapping[str, Any]], form: Form, *, one: bool = False) -> None:
    """Prints objects as `kubectl get -o json` or `-o yaml` does.

    Args:
        objects: the objects.
        form: json or yaml.
        one: whether exactly one was asked for; otherwise a List is printed.
    """
    items = [{"apiVersion": names.API_VERSION, "kind": names.KIND, **item} for item in map(_without_fields, objects)]
    print_data(items[0] if one else {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}, form)


def print_data(data: object, form: Form) -> None:
    """Prints data as JSON or YAML. Both escape control characters."""
    if form is Form.JSON:
        text = json.dumps(data, indent=2)
    else:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip("\n")
    print(text)


def say(text: str) -> None:
    """Prints a line for people to standard error."""
    Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True).print(text, soft_wrap=True)


def is_terminal() -> bool:
    """Whether a person sees standard output."""
    return sys.stdout.isatty()


def _without_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    """The object without metadata.managedFields, as kubectl prints it."""
    metadata = {name: value for name, value in item.get("metadata", {}).items() if name != "managedFields"}
    return {**item, "metadata": metadata}
