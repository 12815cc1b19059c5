"""Profiles: well-known sets of settings, as defaults for what a job does not say.

They are filled into a spec before it is parsed, so that a field which the user writes wins, and nothing behind knows of
profiles: a job that writes a profile's settings out is the same run. The API server must leave the fields alone that a
profile decides, since it cannot know whether there is one (`governed`); such fields have their defaults in the models.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic.alias_generators import to_snake


class Profile(StrEnum):
    """Well-known sets of settings."""

    NONE = "none"
    LLAMA2_2023 = "llama2-2023"


SETTINGS: dict[Profile, dict[str, Any]] = {
    Profile.NONE: {},
    # The QLoRA notebook for Llama 2 that most of 2023's adapters were made with.
    Profile.LLAMA2_2023: {
        "model.quantization.type": "nf4",
        "model.quantization.doubleQuant": False,
        "model.quantization.computeDtype": "float16",
        "dataset.maxLength": 1024,
        "dataset.packing": "disabled",
        "lora.rank": 64,
        "lora.alpha": 16,
        "lora.dropout": "0.1",
        "lora.bias": "none",
        # PEFT's choice for Llama where none was made.
        "lora.targetModules": ["q_proj", "v_proj"],
        "training.batchSize": 16,
        "training.microBatchSize": 4,
        "training.maxSteps": 500,
        "training.learningRate": "2e-4",
        "training.scheduler": "constant",
        "training.warmup": "0",
        "training.optimizer": "paged_adamw_32bit",
        "training.maxGradNorm": "0.3",
        "training.loggingSteps": 10,
    },
}
"""What each profile sets, by path on the wire."""


def governed() -> dict[str, list[Any]]:
    """Every field that a profile decides, with the values that profiles give it."""
    values_by_path: dict[str, list[Any]] = {}
    for settings in SETTINGS.values():
        for path, value in settings.items():
            values_by_path.setdefault(path, []).append(value)
    return values_by_path


def with_profile(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A spec, not parsed yet, with the settings of its profile where it says nothing itself; a new object.

    A profile's length gives way to `epochs`, and its micro-batch to another batch size. What is no profile, or no
    section, is left for the models to refuse.
    """
    profile = raw.get("profile")
    result = dict(raw)
    if not isinstance(profile, str) or profile not in list(Profile):
        return result
    training = raw.get("training")
    for path, value in SETTINGS[Profile(profile)].items():
        if not (isinstance(training, Mapping) and _gives_way(path, training, profile)):
            result = _filled(result, path.split("."), value)
    return result


def _gives_way(path: str, training: Mapping[str, Any], profile: str) -> bool:
    match path:
        case "training.maxSteps":
            return "epochs" in training
        case "training.microBatchSize":
            own = SETTINGS[Profile(profile)]["training.batchSize"]
            return bool(training.get("batchSize", training.get("batch_size", own)) != own)
        case _:
            return False


def _filled(section: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    key, *inner = keys
    if not inner:
        # The models take Python's names too.
        return dict(section) if to_snake(key) in section else {key: value, **section}
    below = section.get(key, {})
    return {**section, key: _filled(below, inner, value)} if isinstance(below, Mapping) else dict(section)
