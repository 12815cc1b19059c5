"""The adapter from which a training continues: finds its two files and checks that the recipe agrees with it.

Rank, alpha and modules of an adapter cannot change when its training continues. The recipe must have the same values,
so that the recipe describes the result. The error message names each field that differs, with the value to write.
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
    "exclude_modules",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
)
"""Settings of PEFT that make another kind of adapter. A recipe has no field for them."""
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")
"""Initialisations of PEFT that also change the base weights. The adapter does not fit the unchanged base model."""


def initial_adapter_objects(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """Returns the adapter's configuration file and weights file. Empty when the recipe has no initial adapter.

    With a run's manifest beside the adapter's folder, the files get the SHA-256 of the manifest.

    Raises:
        TrainerError: MODEL_NOT_FOUND, there is no such folder. MODEL_INVALID, a file is missing, or differs from the
            manifest in size or SHA-256. Else the store's error.
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
    """Checks that the recipe's fields agree with the configuration of the initial adapter.

    Args:
        recipe: the recipe.
        objects: the result of `initial_adapter_objects`.
        open_store: opens the store of the objects.

    Raises:
        TrainerError: INVALID_SPEC, fields disagree; the message names all of them. MODEL_INVALID, the folder has no
            LoRA adapter, or its configuration is invalid. Else the store's error.
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
        raise TrainerError(FailureReason.INVALID_SPEC, f"{_FIELD}: {place}: {'; '.join(wrong)}")


_FIELD = "spec.lora.initialAdapterUri"


class _LoraConfig(BaseModel):
    """The fields of PEFT's LoraConfig that this module reads, with their types."""

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
    """Reads a run's manifest from the parent of the adapter's folder.

    Returns the name of the adapter's folder and the manifest's files by path. Returns None when there is no manifest,
    or when it names another folder as the adapter's.
    """
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
    if isinstance(modules, list):
        # Experts, and layers that PEFT adapts by their weight.
        modules = [*modules, *(str(name).removesuffix(".weight") for name in config.get("target_parameters") or ())]
    for field, asked, there in (
        ("rank", spec.rank, config.get("r")),
        ("alpha", spec.alpha, config.get("lora_alpha")),
        ("bias", str(spec.bias), config.get("bias", "none")),
        ("variant", str(spec.variant), _variant(config)),
        ("modulesToSave", _names(spec.modules_to_save or ()), _names(config.get("modules_to_save") or ())),
        # "all-linear" and patterns cannot be compared before the model is loaded.
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
    """Returns the last segments of module names, sorted. PEFT may save a full path where the recipe has its end."""
    return sorted({str(name).rsplit(".", 1)[-1] for name in modules})


def _shown(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
