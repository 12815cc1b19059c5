"""The adapter that a training continues from: its two files, their checksums, and whether the recipe is for its kind.

Rank, scale and layers of an adapter cannot change when its training continues. The recipe must name the same values, so
that it describes the result. Each field that differs is named with the value to write.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import MANIFEST_NAME
from finetune_trainer.contract.manifest import Manifest, ManifestFile, SourceObject
from finetune_trainer.contract.recipe import LoraSpec, Recipe
from finetune_trainer.contract.recipe.lora import ALL_LINEAR, LoraVariant
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.inputs.sources import read_json, with_content
from finetune_trainer.storage.base import ObjectNotFoundError, OpenStore

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_NOT_IN_RECIPES = (
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "exclude_modules",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
)
"""Settings of PEFT that make another kind of adapter, and that a recipe cannot ask for."""
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""Initialisations after which the adapter fits only base weights that were changed with it."""


def initial_adapter_objects(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """The adapter's configuration and weights; empty when the recipe continues from none.

    A manifest beside the adapter's folder vouches for them: their SHA-256 is then the manifest's.

    Raises:
        TrainerError: MODEL_NOT_FOUND; MODEL_INVALID, a file is missing, or another than the manifest's; or the
            storage's reason.
    """
    if recipe.lora.initial_adapter_uri is None:
        return []
    place = recipe.lora.initial_adapter_uri.without_trailing_slash()
    try:
        by_name = {item.uri.removeprefix(f"{place}/"): item for item in open_store(place).stat(place)}
    except ObjectNotFoundError as error:
        raise TrainerError(FailureReason.MODEL_NOT_FOUND, f"{_FIELD}: {error.message}") from error
    if missing := [name for name in _FILES if name not in by_name]:
        raise _invalid(f"{place} has no {' and no '.join(missing)}{_hint(by_name)}")
    objects = [with_content(by_name[name], open_store, whole=True) for name in _FILES]
    manifest = _manifest(place, open_store)
    return objects if manifest is None else [_vouched(item, place, manifest) for item in objects]


def require_agreement(recipe: Recipe, objects: list[SourceObject], open_store: OpenStore) -> None:
    """Checks that the recipe asks for the kind of adapter that is continued from.

    Args:
        recipe: the recipe.
        objects: what `initial_adapter_objects` has found.
        open_store: where they are opened.

    Raises:
        TrainerError: INVALID_RECIPE, with every field that disagrees; MODEL_INVALID, it is no LoRA adapter.
    """
    if not objects:
        return
    config = read_json(objects[_FILES.index(ADAPTER_CONFIG)], open_store)
    place = recipe.lora.initial_adapter_uri
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _invalid(f"{place} is no LoRA adapter (its peft_type is {kind})")
    try:
        _LoraConfig.model_validate(config)
    except ValidationError as error:
        fields = ", ".join(sorted({str(item["loc"][0]) for item in error.errors(include_url=False)}))
        raise _invalid(f"{place}/{ADAPTER_CONFIG} has values of another type than PEFT's in {fields}") from None
    if wrong := [*_disagreements(recipe.lora, config), *_foreign(config)]:
        raise TrainerError(FailureReason.INVALID_RECIPE, f"{_FIELD}: {place}: {'; '.join(wrong)}")


_FIELD = "spec.lora.initialAdapterUri"


class _LoraConfig(BaseModel):
    """The types of the fields of PEFT's LoraConfig that are read here."""

    model_config = ConfigDict(extra="allow", strict=True)

    r: int
    lora_alpha: int | float
    bias: str = "none"
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None


def _invalid(message: str) -> TrainerError:
    return TrainerError(FailureReason.MODEL_INVALID, f"{_FIELD}: {message}")


def _hint(by_name: dict[str, SourceObject]) -> str:
    if MANIFEST_NAME in by_name:
        folders = sorted({name.split("/")[0] for name in by_name if name.endswith(f"/{ADAPTER_CONFIG}")})
        return f": it is the place of a run; name the adapter's folder in it ({', '.join(folders)})"
    if "adapter_model.bin" in by_name:
        return ": pickled weights are never read; load the adapter with PEFT and call save_pretrained"
    return ""


def _manifest(place: Uri, open_store: OpenStore) -> tuple[str, dict[str, ManifestFile]] | None:
    """The manifest beside the adapter's folder that names this very folder: the folder's name, and files by path."""
    above, _, folder = place.path.rpartition("/")
    if place.scheme is Scheme.HF or not above:
        return None
    uri = Uri(scheme=place.scheme, authority=place.authority, path=above).child(MANIFEST_NAME)
    content = open_store(uri).read(uri)
    manifest = Manifest.read(content) if content is not None else None
    if manifest is None or manifest.adapter != folder:
        return None
    return folder, {file.path: file for file in manifest.files}


def _vouched(item: SourceObject, place: Uri, manifest: tuple[str, dict[str, ManifestFile]]) -> SourceObject:
    folder, files = manifest
    expected = files.get(f"{folder}/{item.uri.removeprefix(f'{place}/')}")
    if expected is None or expected.size != item.size or item.sha256 not in (None, expected.sha256):
        raise _invalid(f"{item.uri} is not the file that the manifest beside its folder names: it is damaged")
    return item.model_copy(update={"sha256": expected.sha256})


def _disagreements(spec: LoraSpec, config: dict[str, Any]) -> Iterator[str]:
    modules = config.get("target_modules") or []
    for field, asked, there in (
        ("rank", spec.rank, config.get("r")),
        ("alpha", spec.alpha, config.get("lora_alpha")),
        ("bias", str(spec.bias), config.get("bias", "none")),
        ("variant", str(spec.variant), _variant(config)),
        ("modulesToSave", _names(spec.modules_to_save or ()), _names(config.get("modules_to_save") or ())),
        # Which layers "all-linear" or a pattern mean is seen when the weights are loaded.
        *(
            [("targetModules", _names(spec.target_modules), _names(modules))]
            if spec.target_modules != [ALL_LINEAR] and isinstance(modules, list)
            else []
        ),
    ):
        if asked != there:
            yield f"its {field} is {_shown(there)}, and spec.lora.{field} is {_shown(asked)}: write the adapter's"


def _foreign(config: dict[str, Any]) -> Iterator[str]:
    for key in _NOT_IN_RECIPES:
        if config.get(key):
            yield f"it is made with PEFT's {key}, which recipes do not know"
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGE_THE_BASE):
        yield f"it began as {start}, which changes the base weights: convert it to a plain adapter first"


def _variant(config: dict[str, Any]) -> str:
    chosen = [
        str(name)
        for name, key in ((LoraVariant.RSLORA, "use_rslora"), (LoraVariant.DORA, "use_dora"))
        if config.get(key)
    ]
    return " and ".join(chosen) or str(LoraVariant.LORA)


def _names(modules: Any) -> list[str]:
    """Last parts of module names, sorted: PEFT writes out in full what was asked for by the end."""
    return sorted({str(name).rsplit(".", 1)[-1] for name in modules})


def _shown(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
