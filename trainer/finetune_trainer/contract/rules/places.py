"""Rules that refuse file:// URIs in a cluster, where a node does not have the user's files."""

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import Rule, value_at

_PLACES = {
    "model.uri": "hf://, s3:// or pvc://",
    "model.cache": "pvc://",
    "dataset.uri": "s3://, hf://, pvc:// or https://",
    "dataset.uris": "s3://, hf:// or pvc://",
    "dataset.validation.uri": "s3://, hf://, pvc:// or https://",
    "lora.initialAdapterUri": "hf://, s3:// or pvc://",
    "checkpoint.uri": "s3://",
    "output.uri": "s3://",
}
"""Path of every field that is a URI -> the schemes to use in a cluster."""


def _no_file(path: str, instead: str) -> Rule[Recipe]:
    def holds(recipe: Recipe) -> bool:
        value = value_at(recipe, path)
        return not any(str(uri).startswith("file://") for uri in (value if isinstance(value, list) else [value]))

    keys = path.split(".")
    absent = " || ".join(f"!has(self.{'.'.join(keys[: end + 1])})" for end in range(1, len(keys)))
    one = f"self.{path}.startsWith('file://')"
    is_file = f"self.{path}.exists(uri, uri.startsWith('file://'))" if path.endswith("uris") else one
    return Rule(
        path=path,
        holds=holds,
        cel=f"{absent} || !{is_file}",
        message=f"file:// works only in a local run (finetune local run): use {instead}",
    )


RULES: tuple[Rule[Recipe], ...] = tuple(_no_file(path, instead) for path, instead in _PLACES.items())
