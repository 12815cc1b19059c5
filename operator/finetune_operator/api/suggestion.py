"""Suggestions for fields and values that do not exist.

They are searched in this order: the same name in another spelling, names of other trainers, similar names, and then the
same in other sections. A wrong suggestion is worse than none, so there is only one or none.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from finetune_operator.api import foreign_words
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.contract.recipe import Method

_CLOSE = 0.75
"""The least difflib ratio of a similar name: about one letter in four may differ."""


def for_field(location: Sequence[str | int]) -> str:
    """What to write instead of a field that does not exist.

    Args:
        location: its path within the spec, as JSON keys and indices; the last one is the field.
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
    """What to write instead of a top-level field that does not exist.

    Args:
        written: the field.
        expected: the fields that exist there.
    """
    if close := difflib.get_close_matches(_plain(written), {_plain(name): name for name in expected}, n=1):
        return f"it is called {next(name for name in expected if _plain(name) == close[0])} here"
    if path := _meant("", _plain(written)):
        return f"here it is spec.{path}"
    return f"the fields here are {', '.join(expected)}"


def for_value(value: object, choices: Sequence[str]) -> str:
    """What to write instead of a value that is none of the choices; empty if none is similar."""
    by_name = {_plain(choice): choice for choice in choices}
    written = _plain(str(value))
    if Method.DPO in choices and (answer := _word(foreign_words.METHODS, written)):
        return str(answer)
    known = [choice for choice in _word(foreign_words.VALUES, written) or () if choice in choices]
    close = difflib.get_close_matches(written, by_name, n=1, cutoff=_CLOSE)
    meant = known[0] if known else by_name[close[0]] if close else None
    return f"write {meant}" if meant else ""


def _meant(here: str, name: str) -> str | None:
    """The path of the field that was meant; None if no field or several fields are similar."""
    within = {_plain(path.rpartition(".")[2]): path for path in _paths() if path.rpartition(".")[0] == here}
    if name in within:
        return within[name]
    # Another trainer's name may include the section (model_name for model: {name: …}) or not.
    for word in (_plain(here.rpartition(".")[2]) + name, name):
        if path := _word(foreign_words.FIELDS, word):
            return str(path)
    if close := difflib.get_close_matches(name, within, n=1, cutoff=_CLOSE):
        return within[close[0]]
    anywhere: dict[str, list[str]] = {}
    for path in _paths():
        if path.startswith("profileRef."):
            continue  # parts of a reference, and no settings
        anywhere.setdefault(_plain(path.rpartition(".")[2]), []).append(path)
    if name in anywhere:
        return _highest(anywhere[name])
    close = difflib.get_close_matches(name, anywhere, n=1, cutoff=0.85)  # in other sections it must be more similar
    return _highest(anywhere[close[0]]) if close else None


def _called(path: str, here: str, written: str) -> str:
    section, _, name = path.rpartition(".")
    if section == here:
        return f"it is called {name} here"
    return f"it belongs in {section or 'spec'}" if name == written else f"here it is {path}"


def _highest(paths: Sequence[str]) -> str | None:
    """The path with the fewest levels; None if several have so few."""
    least = min(path.count(".") for path in paths)
    top = [path for path in paths if path.count(".") == least]
    return top[0] if len(top) == 1 else None


def _plain(name: str) -> str:
    return re.sub("[-_. ]", "", name).lower()


def _word(table: dict[str, Any], plain: str) -> Any:
    """The entry of a table for this name, in any spelling."""
    return next((entry for word, entry in table.items() if _plain(word) == plain), None)


@cache
def _paths() -> tuple[str, ...]:
    """Every field of a spec by its path of JSON keys, without indices of lists."""
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
