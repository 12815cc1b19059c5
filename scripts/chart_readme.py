"""The table of values in the chart's README, from values.yaml and its comments."""

from collections.abc import Iterator
from pathlib import Path

import yaml

BEGIN = "<!-- values: written by scripts/generate -->\n"
END = "<!-- end of values -->\n"


def chart_readme(chart: Path) -> str:
    """Returns the README of a chart with its table renewed.

    Args:
        chart: folder with README.md, where two comments stand around the table, and values.yaml.

    Raises:
        ValueError: the comments are missing, or a value has no comment.
    """
    text = (chart / "README.md").read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{chart}/README.md: {BEGIN.strip()} and {END.strip()} must stand around the table of values")
    table = values_table((chart / "values.yaml").read_text(encoding="utf-8"))
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def values_table(values: str) -> str:
    """Returns the table of a values.yaml: name, default and the comment above each value.

    Raises:
        ValueError: a value has no comment.
    """
    rows = [f"| `{name}` | {default} | {comment} |" for name, default, comment in _rows(values)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    lines = text.splitlines()

    def rows(node: yaml.MappingNode, above: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            name, comment = f"{above}{key.value}", _comment(lines, key.start_mark.line)
            section = isinstance(value, yaml.MappingNode) and not value.flow_style
            if section:
                if comment:
                    yield name, "", comment
                yield from rows(value, f"{name}.")
            elif comment:
                yield name, _default(text, value), comment
            else:
                raise ValueError(f"values.yaml: {name} has no comment, and the README says what every value means")

    yield from rows(root, "")


def _comment(lines: list[str], line: int) -> str:
    """The comment that ends above a line, as one line."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(found).replace("|", "\\|")


def _default(text: str, value: yaml.Node) -> str:
    """The default as it stands in the file. Empty for an empty text."""
    written = text[value.start_mark.index : value.end_mark.index].strip()
    return "" if written in ('""', "''") else f"`{written}`"
