"""Rules on several fields of the `dataset` section."""

from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.dataset import FIELDS_OF, TRAIN_SPLIT, DatasetSchema, Loss
from finetune_trainer.contract.rule import Rule, literal
from finetune_trainer.contract.rules.cel import cel_value
from finetune_trainer.contract.uri import Scheme, scheme_of

_PARTS = sorted(frozenset().union(*FIELDS_OF.values()))
_ANSWERS_OF_A_PAIR = ("chosen", "rejected")
"""Parts that the rules of the method (`preference`) are about."""


def _part(part: str) -> Rule[Recipe]:
    """The rule that a named column is one that the schema reads; else training would silently use another column."""
    schemas = [str(schema) for schema, parts in FIELDS_OF.items() if part in parts]
    of_pairs = part in FIELDS_OF[DatasetSchema.PREFERENCE]
    no_pairs = "" if of_pairs else "self.method != 'dpo' && "
    return Rule(
        path=f"dataset.fields.{part}",
        holds=lambda recipe: (
            recipe.dataset.fields is None
            or part not in recipe.dataset.fields.named
            or (recipe.dataset.schema_ in ("auto", *schemas) and (of_pairs or recipe.method is not Method.DPO))
        ),
        cel=f"!has(self.dataset.fields) || !has(self.dataset.fields.{part}) || "
        f"({no_pairs}self.dataset.schema in {cel_value(['auto', *schemas])})",
        message=f"only rows of schema {' or '.join(schemas)} have this part: remove the field",
    )


def _parts_fit() -> str:
    """CEL: some schema has all the parts that are named."""
    of_each = (
        " && ".join(f"!has(self.dataset.fields.{part})" for part in _PARTS if part not in parts)
        for parts in dict.fromkeys(FIELDS_OF.values())
    )
    return " || ".join(f"({condition})" for condition in of_each)


def _from_hub(recipe: Recipe) -> bool:
    return any(uri.scheme is Scheme.HF for uri in recipe.dataset.places)


_FROM_HUB = (
    "(has(self.dataset.uri) && self.dataset.uri.startsWith('hf://')) || "
    "(has(self.dataset.uris) && self.dataset.uris.exists(uri, uri.startsWith('hf://')))"
)
"""CEL: some of the training rows come from the Hub."""
_NAMES_SPLIT = "has(self.dataset.validation) && has(self.dataset.validation.split)"


def _validates_on_what_it_trains(recipe: Recipe) -> bool:
    validation = recipe.dataset.validation
    return (
        validation is not None
        and validation.uri is None
        and validation.split is not None
        and validation.split == (recipe.dataset.split or TRAIN_SPLIT)
    )


RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="dataset",
        holds=lambda recipe: (recipe.dataset.uri is None) != (recipe.dataset.uris is None),
        cel="has(self.dataset.uri) != has(self.dataset.uris)",
        message="set uri (one place) or uris (a list of places)",
    ),
    Rule(
        path="dataset.sha256",
        holds=lambda recipe: scheme_of(recipe.dataset.uri) is not Scheme.HTTPS or recipe.dataset.sha256 is not None,
        cel="!has(self.dataset.uri) || !self.dataset.uri.startsWith('https://') || has(self.dataset.sha256)",
        message="https:// data needs the SHA-256 of its file: set what sha256sum prints for it",
    ),
    Rule(
        path="dataset.uris",
        holds=lambda recipe: all(uri.scheme is not Scheme.HTTPS for uri in recipe.dataset.uris or ()),
        cel="!has(self.dataset.uris) || !self.dataset.uris.exists(uri, uri.startsWith('https://'))",
        message="https:// works in dataset.uri alone, where dataset.sha256 names its content: copy the files to s3://",
    ),
    Rule(
        path="dataset.validation.sha256",
        holds=lambda recipe: (
            recipe.dataset.validation is None
            or scheme_of(recipe.dataset.validation.uri) is not Scheme.HTTPS
            or recipe.dataset.validation.sha256 is not None
        ),
        cel="!has(self.dataset.validation) || !has(self.dataset.validation.uri) || "
        "!self.dataset.validation.uri.startsWith('https://') || has(self.dataset.validation.sha256)",
        message="https:// data needs the SHA-256 of its file: set what sha256sum prints for it",
    ),
    Rule(
        path="dataset.validation.sha256",
        holds=lambda recipe: (
            recipe.dataset.validation is None
            or recipe.dataset.validation.sha256 is None
            or recipe.dataset.validation.uri is not None
        ),
        cel="!has(self.dataset.validation) || !has(self.dataset.validation.sha256) || has(self.dataset.validation.uri)",
        message="is the checksum of validation.uri: set that, or remove the field",
    ),
    Rule(
        path="dataset.revision",
        holds=lambda recipe: recipe.dataset.revision is None or _from_hub(recipe),
        cel=f"!has(self.dataset.revision) || {_FROM_HUB}",
        message="only hf:// data has revisions: remove the field",
    ),
    Rule(
        path="dataset.split",
        holds=lambda recipe: recipe.dataset.split is None or _from_hub(recipe),
        cel=f"!has(self.dataset.split) || {_FROM_HUB}",
        message="only hf:// data has splits: remove the field, and name the files of the split in uri or uris",
    ),
    Rule(
        path="dataset.fields",
        holds=lambda recipe: (
            recipe.dataset.fields is None
            or recipe.dataset.schema_ is not DatasetSchema.AUTO
            or any(recipe.dataset.fields.named <= parts for parts in FIELDS_OF.values())
        ),
        cel=f"!has(self.dataset.fields) || self.dataset.schema != 'auto' || {_parts_fit()}",
        message="no schema has all of these parts: set dataset.schema, and remove the others",
    ),
    *map(_part, (part for part in _PARTS if part not in _ANSWERS_OF_A_PAIR)),
    Rule(
        path="dataset.chatTemplate",
        holds=lambda recipe: recipe.dataset.chat_template is None or recipe.dataset.schema_ is not DatasetSchema.TEXT,
        cel="!has(self.dataset.chatTemplate) || self.dataset.schema != 'text'",
        message="rows of schema text are no conversations, and a template would not be used: remove the field",
    ),
    Rule(
        path="dataset.loss",
        holds=lambda recipe: (
            recipe.dataset.loss not in (Loss.ASSISTANT, Loss.COMPLETION)
            or recipe.dataset.schema_ is not DatasetSchema.TEXT
        ),
        cel="!(self.dataset.loss in ['assistant', 'completion']) || self.dataset.schema != 'text'",
        message="rows of schema text have no such part: use auto or all",
    ),
    Rule(
        path="dataset.validation",
        holds=lambda recipe: (
            recipe.dataset.validation is None
            or (recipe.dataset.validation.uri is None and recipe.dataset.validation.split is None)
            != (recipe.dataset.validation.fraction is None)
        ),
        cel="!has(self.dataset.validation) || (has(self.dataset.validation.uri) || "
        "has(self.dataset.validation.split)) != has(self.dataset.validation.fraction)",
        message="set uri (a file of its own), split (of a Hub data set) or fraction (part of the training rows)",
    ),
    Rule(
        path="dataset.validation.split",
        holds=lambda recipe: (
            recipe.dataset.validation is None
            or recipe.dataset.validation.split is None
            or scheme_of(recipe.dataset.validation_place) is Scheme.HF
        ),
        cel=f"!({_NAMES_SPLIT}) || (has(self.dataset.validation.uri) ? "
        "self.dataset.validation.uri.startsWith('hf://') : "
        "has(self.dataset.uri) && self.dataset.uri.startsWith('hf://'))",
        message="only hf:// data has splits: set validation.uri to hf://datasets/org/name, or remove the field",
    ),
    Rule(
        path="dataset.validation.split",
        holds=lambda recipe: not _validates_on_what_it_trains(recipe),
        cel=f"!({_NAMES_SPLIT}) || has(self.dataset.validation.uri) || self.dataset.validation.split != "
        f"(has(self.dataset.split) ? self.dataset.split : {literal(TRAIN_SPLIT)})",
        message="is the split that is trained: name another, such as validation or test",
    ),
)
