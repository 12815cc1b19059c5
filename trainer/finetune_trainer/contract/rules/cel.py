"""CEL expressions that several rules use."""

from finetune_trainer.contract.profile import SETTINGS
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import literal

_DEFAULTS = Recipe.model_validate(
    {
        "job": {"name": ""},
        "model": {"uri": "hf://org/name"},
        "dataset": {"uri": "s3://bucket/key"},
        "output": {"uri": "s3://bucket"},
    }
).to_dict()


def effective(path: str) -> str:
    """CEL for the effective value of a field, a string or a list of strings.

    A field that a profile sets has no default in the CRD, so in CEL it is absent unless the user has set it. The
    expression then takes the profile's value, or the model's default.

    Args:
        path: section and field on the wire, for example `training.scheduler`.
    """
    section, key = path.split(".")
    default = _DEFAULTS[section][key]
    value = cel_value(default)
    for profile, settings in SETTINGS.items():
        if settings.get(path, default) != default:
            value = f"self.profile == {literal(profile)} ? {cel_value(settings[path])} : {value}"
    return f"(has(self.{path}) ? self.{path} : ({value}))"


def cel_value(value: object) -> str:
    """The CEL literal of a string or a list of strings."""
    return f"[{', '.join(map(cel_value, value))}]" if isinstance(value, list) else literal(str(value))
