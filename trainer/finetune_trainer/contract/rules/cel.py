"""CEL that several rules use."""

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


def counted(path: str) -> str:
    """The value that a field of a section has in the end: a string or a list of strings.

    A field that a profile decides has no default in the CRD, so CEL sees only what the user wrote. The profile's value,
    or the model's default, stands in its place here.
    """
    section, key = path.split(".")
    default = _DEFAULTS[section][key]
    value = written(default)
    for profile, settings in SETTINGS.items():
        if settings.get(path, default) != default:
            value = f"self.profile == {literal(profile)} ? {written(settings[path])} : {value}"
    return f"(has(self.{path}) ? self.{path} : ({value}))"


def written(value: object) -> str:
    """A string or a list of strings as CEL writes it."""
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else literal(str(value))
