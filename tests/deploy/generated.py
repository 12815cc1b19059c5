"""Hypothesis strategies for specs, made from the CRD's schema: any fields, with any values within the bounds."""

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from deploy.server import MINIMAL
from deploy.specs import FULL, PLACES, Spec, found, value_of
from finetune_operator.api.finetunejob import SpecError, parse_spec

_DECIMALS = ["0", "0.05", "0.5", "1e-5", "2e-4", "1E-3", "0.999", "1", "1.5", "16", "8", "100"]
_URIS = ["s3://models/base", "s3://data/a b.jsonl", "pvc://claim/a/b", "hf://org/name", "file:///data", "s3://bkt"]
_QUANTITIES: list[Any] = [0, 1, 4, "500m", "1.5", "64Mi", "65536Ki", "16e9", "1E", ".5Gi", "+2", "1Pi", "3u", "1Gi"]

_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x1FFF, exclude_categories=["Cc", "Cs"]), max_size=8)


def _strings(place: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Returns a strategy for texts that a field may hold, and sometimes for texts of another field."""
    examples = [value_of(spec, path) for spec in FULL if (path := found(spec, place)) is not None]
    messages = " ".join(rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
    options: list[st.SearchStrategy[Any]] = [st.sampled_from(examples)]
    if "decimal" in messages:
        options.append(st.sampled_from(_DECIMALS))
    elif "://" in messages and "endpoint" not in place:
        options.append(st.sampled_from(_URIS))
    elif "must be" not in messages or "one line" in messages:
        # Free text; short, and within the bound.
        options.append(_TEXT.filter(lambda text: schema.get("minLength", 0) <= len(text)))
    return st.one_of(options)


def _values(place: str) -> st.SearchStrategy[Any]:
    schema = PLACES[place]
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from(_QUANTITIES)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema["minimum"], schema["maximum"]
            return st.integers(low, min(high, low + 20)) | st.integers(low, high)
        case "string":
            return _strings(place, schema)
        case "array":
            most = min(3, schema["maxItems"])
            elements, least = _values(f"{place}[]"), schema.get("minItems", 0)
            if schema.get("x-kubernetes-list-type") == "map":
                return st.lists(elements, min_size=least, max_size=most, unique_by=lambda item: str(item["name"]))
            return st.lists(elements, min_size=least, max_size=most)
        case _ if "additionalProperties" in schema:
            keys = st.sampled_from(["gpu", "example.com/zone", "team"])
            return st.dictionaries(keys, _values(f"{place}{{}}"), max_size=2)
        case _:
            return _sections(place)


def _sections(place: str) -> st.SearchStrategy[Spec]:
    schema = PLACES[place]
    required = schema.get("required", ())
    fields = {name: _values(f"{place}.{name}") for name in schema["properties"]}
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in fields.items() if name in required},
        optional={name: strategy for name, strategy in fields.items() if name not in required},
    )


SPECS = _sections("spec")
"""Specs within the schema's bounds; rules may be broken."""


def mended(spec: Spec) -> Spec:
    """Returns the spec without the fields that the parser refuses. A required field gets its minimal value instead."""
    spec = copy.deepcopy(spec)
    while True:
        try:
            parse_spec(spec, own_values=True)
        except SpecError as error:
            # One at a time, because a removal from a list changes the other indices.
            _take_out(spec, error.problems[0].path)
        else:
            return spec


def _take_out(spec: Spec, path: str) -> None:
    """Removes a field from a spec.

    A required field gets the value of the minimal spec, or is removed with its section.
    """
    keys: list[str | int] = []
    value: Any = spec
    for part in path.replace("[", ".[").split(".")[1:]:
        # A map's key may have dots. Then the whole map is removed.
        key: str | int = int(part[1:-1]) if part.startswith("[") else part
        if isinstance(value, dict) and key not in value:
            break
        value = value[key]
        keys.append(key)
    place = "spec" + "".join("[]" if isinstance(key, int) else f".{key}" for key in keys)
    parent = "spec" + "".join("[]" if isinstance(key, int) else f".{key}" for key in keys[:-1])
    minimal = found(MINIMAL["spec"], place)
    if minimal is not None:
        value_of(spec, tuple(keys[:-1]))[keys[-1]] = copy.deepcopy(value_of(MINIMAL["spec"], minimal))
    elif isinstance(keys[-1], int) or keys[-1] in PLACES.get(parent, {}).get("required", ()):
        del value_of(spec, tuple(keys[:1]))[keys[1]]
    else:
        del value_of(spec, tuple(keys[:-1]))[keys[-1]]
