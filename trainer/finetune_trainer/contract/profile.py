"""Profiles: well-known sets of settings, used as defaults for the fields that a job leaves out.

A profile is filled into a spec before the spec is parsed. So a field that the user sets wins, and no later code knows
of profiles: a job with the same settings written out is the same run. The API server must not fill defaults into fields
that a profile sets (`profile_values`), because it cannot know the profile. The defaults of these fields are in the
models.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from pydantic.alias_generators import to_snake


class Profile(StrEnum):
    """The names of the profiles."""

    NONE = "none"
    LLAMA2_2023 = "llama2-2023"


SETTINGS: dict[Profile, dict[str, Any]] = {
    Profile.NONE: {},
    # The QLoRA notebook for Llama 2 with which most adapters of 2023 were made.
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
        # PEFT's default for Llama.
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
"""The settings of each profile: path on the wire -> value."""


def profile_values() -> dict[str, list[Any]]:
    """Every field that some profile sets: path on the wire -> the profiles' values."""
    values_by_path: dict[str, list[Any]] = {}
    for settings in SETTINGS.values():
        for path, value in settings.items():
            values_by_path.setdefault(path, []).append(value)
    return values_by_path


def with_profile(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an unparsed spec with the settings of its profile in the fields that the spec leaves out.

    A profile's `maxSteps` is not used if the spec sets `epochs`, and its `microBatchSize` is not used if the spec sets
    another `batchSize`. An unknown profile or an invalid section is not changed; the models refuse it.
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
        # The models accept the fields' Python names too.
        return dict(section) if to_snake(key) in section else {key: value, **section}
    below = section.get(key, {})
    return {**section, key: _filled(below, inner, value)} if isinstance(below, Mapping) else dict(section)
