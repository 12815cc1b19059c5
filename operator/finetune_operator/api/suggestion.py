"""What somebody meant who wrote a field or a value that does not exist.

Asked in this order: the same name in another spelling, the words of other trainers, close names, and all of this in
other sections. A wrong guess misleads more than none, so that only one answer is ever given.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from finetune_operator.api import foreign_words
from finetune_operator.api.spec import FineTuneJobSpec

_CLOSE = 0.75
"""difflib's ratio from which on a name is taken for a slip: one letter in four may differ."""


def for_field(location: Sequence[str | int]) -> str:
    """What to write instead of a field that does not exist.

    Args:
        location: its path within the spec, by names on the wire and indices; the last is the field.
    """
    *section, written = [part for part in location if isinstance(part, str)]
    here, name = ".".join(section), _plain(written)
    if reason := _word(foreign_words.NEEDLESS, name):
        return f"none is needed: {reason}; remove it"
    if path := _meant(here, name):
        different = _word(foreign_words.DIFFERENT, name)
        return f"{_called(path, here, written)}{f' ({different})' if different else ''}"
    fields = [path.rpartition(".")[2] for path in _paths() if path.rpartition(".")[0] == here]
    return f"the fields here are {', '.join(fields)}"


def for_top_level(written: str, expected: Sequence[str]) -> str:
    """What to write instead of a field beside `spec` that does not exist, of those that are expected there."""
    if close := difflib.get_close_matches(_plain(written), {_plain(name): name for name in expected}, n=1):
        return f"it is called {next(name for name in expected if _plain(name) == close[0])} here"
    if path := _meant("", _plain(written)):
        return f"here it is spec.{path}"
    return f"the fields here are {', '.join(expected)}"


def for_value(value: object, choices: Sequence[str]) -> str:
    """Which of the choices to write instead of a value that is none of them; empty when none is close."""
    by_name = {_plain(choice): choice for choice in choices}
    written = _plain(str(value))
    known = [choice for choice in _word(foreign_words.VALUES, written) or () if choice in choices]
    close = difflib.get_close_matches(written, by_name, n=1, cutoff=_CLOSE)
    meant = known[0] if known else by_name[close[0]] if close else None
    return f"write {meant}" if meant else ""


def _meant(here: str, name: str) -> str | None:
    """The path of the field that is meant; None when nothing, or several, are close."""
    within = {_plain(path.rpartition(".")[2]): path for path in _paths() if path.rpartition(".")[0] == here}
    if name in within:
        return within[name]
    # A word may stand with its section (model: {name: …} for model_name) or without.
    for word in (_plain(here.rpartition(".")[2]) + name, name):
        if path := _word(foreign_words.FIELDS, word):
            return str(path)
    if close := difflib.get_close_matches(name, within, n=1, cutoff=_CLOSE):
        return within[close[0]]
    anywhere: dict[str, list[str]] = {}
    for path in _paths():
        anywhere.setdefault(_plain(path.rpartition(".")[2]), []).append(path)
    if name in anywhere:
        return _highest(anywhere[name])
    close = difflib.get_close_matches(name, anywhere, n=1, cutoff=0.85)  # far away, so it must be closer
    return _highest(anywhere[close[0]]) if close else None


def _called(path: str, here: str, written: str) -> str:
    section, _, name = path.rpartition(".")
    if section == here:
        return f"it is called {name} here"
    return f"it belongs in {section or 'spec'}" if name == written else f"here it is {path}"


def _highest(paths: Sequence[str]) -> str | None:
    """The one path that lies higher than the others; None when several do."""
    least = min(path.count(".") for path in paths)
    top = [path for path in paths if path.count(".") == least]
    return top[0] if len(top) == 1 else None


def _plain(name: str) -> str:
    return re.sub("[-_. ]", "", name).lower()


def _word(table: dict[str, Any], plain: str) -> Any:
    """The entry of a table whose word is this, in whatever spelling."""
    return next((entry for word, entry in table.items() if _plain(word) == plain), None)


@cache
def _paths() -> tuple[str, ...]:
    """Every field of a spec by its path on the wire; what is in a list counts as in its field."""
    return tuple(_walk(FineTuneJobSpec, ""))


def _walk(model: type[BaseModel], before: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{before}{field.alias or name}"
        yield path
        for inner in _models(field.annotation):
            yield from _walk(inner, f"{path}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
