"""Tables in Markdown, which docs/benchmarks.md can show as they are printed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A title, column heads and rows."""

    title: str
    heads: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def text(self) -> str:
        """Returns the table in Markdown."""
        lines = [f"### {self.title}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (self.heads, ["---"] * len(self.heads), *self.rows)]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest value that at least this share of the values does not exceed (nearest-rank method)."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def load() -> str:
    """Returns the machine's load average of the last minute, in words."""
    return f"{os.getloadavg()[0]:.1f}"
