"""The adapter's folder as users get it: weights, PEFT's configuration, the tokenizer. Nothing of the pod.

The libraries write pod paths and flags of this process, and write sets in random order. These are removed or sorted: a
served adapter must name the base model as the user does, and two equal runs must give equal bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.export.base_model import model_id
from finetune_trainer.export.tokenizer import write_tokenizer

_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A written adapter.

    Attributes:
        folder: its files.
        target_modules: names of the adapted layers, unique and sorted.
    """

    folder: Path
    target_modules: list[str]


def write_adapter(model: Any, tokenizer: Any, recipe: Recipe, folder: Path, revision: str | None = None) -> Adapter:
    """Writes the adapter of a PEFT model and its tokenizer into the empty `folder`.

    `revision` is the commit of a Hub model, which PEFT takes when it loads the base model by itself.
    """
    from finetune_trainer.model.adapter import adapted_modules

    # "auto" would ask the Hub whether the vocabulary has changed; it never does here.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    write_tokenizer(tokenizer, folder)
    _scrub_adapter_config(folder / _ADAPTER_CONFIG, recipe, revision)
    # PEFT's own card: the run's record has a better one.
    (folder / "README.md").unlink(missing_ok=True)
    return Adapter(folder=folder, target_modules=adapted_modules(model))


def _scrub_adapter_config(file: Path, recipe: Recipe, revision: str | None) -> None:
    """Names the base model as the user does and sorts the module names."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model_id(recipe.model.uri)
    config["revision"] = revision
    # PEFT keeps them in sets, whose order changes from process to process.
    for key in ("target_modules", "target_parameters", "modules_to_save"):
        if config.get(key):
            config[key] = sorted(config[key])
    _write_json(file, config)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
