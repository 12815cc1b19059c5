"""The tables of docs/metrics.md, from the catalogue."""

from finetune_operator.metrics.catalog import ALL, Group

BEGIN = "<!-- Generated from the catalogue of metrics by scripts/generate: change it there. -->"
END = "<!-- End of what is generated. -->"


def with_reference(page: str) -> str:
    """The page with the tables of all metrics between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    head, _, rest = page.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}")
    return head + BEGIN + "\n\n" + _tables() + END + tail


def _tables() -> str:
    text = ""
    for group in Group:
        text += f"### {group}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        for metric in ALL:
            if metric.group is group:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                text += f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"
        text += "\n"
    return text
