"""Patterns of paths, as a data set's card and `dataset.uri` name files: `data/train-*`, `**/*.jsonl`."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

WILDCARDS = "*?["
"""Characters that make a path a pattern."""


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern and not the path of one file."""
    return any(letter in text for letter in WILDCARDS)


def matching_paths(pattern: str, paths: Iterable[str]) -> list[str]:
    """The paths that match a pattern, in their order.

    Segments are compared one by one, as in the Hub's client: `*` and `?` never match a slash, and a segment `**`
    matches any number of segments, at the end at least one. A segment `**.csv` means `**/*.csv`, as in older cards.
    """
    wanted = [part for segment in pattern.removeprefix("./").split("/") for part in _parts(segment)]
    return [path for path in paths if _matches(wanted, path.split("/"))]


def _parts(segment: str) -> list[str]:
    return ["**", segment[1:]] if segment.startswith("**") and segment != "**" else [segment]


def _matches(wanted: list[str], segments: list[str]) -> bool:
    """Whether the segments match. The time is the product of both lengths, whatever the pattern is."""
    reached = {0}
    for number, segment in enumerate(wanted):
        last = number == len(wanted) - 1
        if segment == "**":
            least = min(reached) + (1 if last else 0)
            reached = set(range(least, len(segments) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(segments) and fnmatchcase(segments[at], segment)}
        if not reached:
            return False
    return len(segments) in reached
