"""Merging partial specs: the built-in defaults, profiles, and the job. What comes later wins.

Sections are merged field by field, and so are maps such as nodeSelector. Every other value is replaced as a whole:
lists, and sections that may be absent, such as a reference to a Secret.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.supplied import section_of
from finetune_trainer.contract.uri import Scheme

Values = Mapping[str, Any]


def merged(layers: Sequence[Values]) -> dict[str, Any]:
    """One partial spec of several. The arguments are not changed."""
    result: dict[str, Any] = {}
    for layer in layers:
        result = _section(_giving_way(result, layer), layer, FineTuneJobSpec)
    return result


def origins(layers: Sequence[Values]) -> dict[str, int]:
    """Path of each value of the merged spec -> index of the layer that it comes from.

    A list, and what is replaced as a whole, is one value.
    """
    found: dict[str, int] = {}
    for path, value in leaves(merged(layers)):
        keys = path
        found[".".join(path)] = max(
            (number for number, layer in enumerate(layers) if _at(layer, keys) == value), default=0
        )
    return found


def leaves(
    values: Values, model: type[BaseModel] | None = FineTuneJobSpec, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value by its keys: lists and what is replaced as a whole are one value each."""
    for key, value in values.items():
        inner = section_of(model, key) if model is not None else None
        if isinstance(value, Mapping) and inner is not None:
            yield from leaves(value, inner, (*before, key))
        elif isinstance(value, Mapping) and _is_map(model, key):
            yield from (((*before, key, name), item) for name, item in value.items())
        else:
            yield (*before, key), value


def _section(lower: Values, upper: Values, model: type[BaseModel]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        if value is None:
            continue  # as the API server does, where kubectl sends one
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if (inner := section_of(model, key)) is not None:
                result[key] = _section(below, value, inner)
                continue
            if _is_map(model, key):
                result[key] = {**below, **value}
                continue
        result[key] = value
    return result


def _is_map(model: type[BaseModel] | None, key: str) -> bool:
    """Whether a field is a map from names to texts: nodeSelector, labels, annotations."""
    if model is None:
        return False
    return (model.__name__, key) in {("Scheduling", name) for name in ("nodeSelector", "labels", "annotations")}


def _giving_way(lower: dict[str, Any], upper: Values) -> dict[str, Any]:
    """The lower layers without values that would only contradict the upper one: nobody can remove another's default."""
    training, beneath = _mapping(upper, "training"), _mapping(lower, "training")
    gone = []
    if "epochs" in training:
        gone.append("maxSteps")
    if "maxSteps" in training:
        gone.append("epochs")
    if training.get("batchSize", beneath.get("batchSize")) != beneath.get("batchSize"):
        gone.append("microBatchSize")
    if training.get("scheduler", beneath.get("scheduler")) != beneath.get("scheduler"):
        gone += ["restarts", "minLearningRate"]
    result = dict(lower)
    if gone and beneath:
        result["training"] = {key: value for key, value in beneath.items() if key not in gone}
    if trackers := [name for name, tracker in _mapping(upper, "tracking").items() if tracker is not None]:
        result["tracking"] = {name: known for name, known in _mapping(lower, "tracking").items() if name in trackers}
    model = _mapping(upper, "model")
    uri = model.get("uri")
    fetched = (f"{Scheme.HF}://", f"{Scheme.S3}://")
    if isinstance(uri, str) and not uri.startswith(fetched) and "cache" in _mapping(lower, "model"):
        result["model"] = {key: value for key, value in lower["model"].items() if key != "cache"}
    return result


def _mapping(values: Values, key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def _at(values: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return _ABSENT
        values = values[key]
    return values


_ABSENT = object()
