"""The adapter's folder as users get it: weights, PEFT's configuration, the tokenizer, a model card. Nothing of the pod.

What the libraries write names pod paths, holds flags of this process and orders sets by chance; a served adapter must
name the model by the user's word for it, and two equal runs must give equal bytes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Scheme, parse_uri

_ADAPTER_CONFIG, _TOKENIZER_CONFIG, _CARD = "adapter_config.json", "tokenizer_config.json", "README.md"
_OF_THIS_PROCESS = ("is_local", "local_files_only", "name_or_path", "trust_remote_code")


def model_id(uri: str) -> str:
    """The base model as a server should name it: `org/name` for a Hub model, a path for a local one, else the URI."""
    place = parse_uri(uri)
    match place.scheme:
        case Scheme.HF:
            return place.authority
        case Scheme.FILE:
            return place.path
        case Scheme.S3 | Scheme.PVC:
            return uri


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A written adapter.

    Attributes:
        folder: its files.
        target_modules: names of the layers that carry it, without repetition, sorted.
    """

    folder: Path
    target_modules: list[str]

    @property
    def files(self) -> list[Path]:
        """All files, sorted by name."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def write_adapter(
    model: Any, tokenizer: Any, recipe: Recipe, metrics: dict[str, float], folder: Path, revision: str | None = None
) -> Adapter:
    """Writes the adapter of a PEFT model, its tokenizer and a model card into the empty `folder`.

    `revision` is the commit of a Hub model, which PEFT takes when it loads the base model by itself.
    """
    from finetune_trainer.model.adapter import adapted_modules

    # "auto" would ask the Hub whether the vocabulary has changed; it never does here.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    tokenizer.save_pretrained(str(folder))
    _scrub_adapter_config(folder / _ADAPTER_CONFIG, recipe, revision)
    _scrub_tokenizer_config(folder / _TOKENIZER_CONFIG)
    (folder / _CARD).write_text(model_card(recipe, metrics), encoding="utf-8")
    return Adapter(folder=folder, target_modules=adapted_modules(model))


def model_card(recipe: Recipe, metrics: dict[str, float]) -> str:
    """The README of the adapter, with the metadata that the Hub reads."""
    base, lora, training = model_id(recipe.model.uri), recipe.lora, recipe.training
    measured = "".join(f"| {name} | {value:.6g} |\n" for name, value in sorted(metrics.items()))
    return (
        f"---\nbase_model: {json.dumps(base)}\nlibrary_name: peft\npipeline_tag: text-generation\n---\n\n"
        f"# {recipe.job.name}\n\n"
        f"A LoRA adapter for `{base}`.\n\n"
        "| | |\n|---|---|\n"
        f"| rank, alpha, dropout | {lora.rank}, {lora.alpha}, {lora.dropout} |\n"
        f"| base weights while training | {recipe.model.quantization.type} |\n"
        f"| learning rate, rows per step | {training.learning_rate}, {training.batch_size} |\n"
        f"{measured}\n"
        "The whole recipe and the checksums of all files are in `manifest.json` beside this folder.\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(base)})\n"
        'model = PeftModel.from_pretrained(model, "path/of/this/folder")\n'
        "```\n"
    )


def _scrub_adapter_config(file: Path, recipe: Recipe, revision: str | None) -> None:
    """Names the base model by the user's word and sorts the module names."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model_id(recipe.model.uri)
    config["revision"] = revision
    # PEFT keeps them in a set, whose order changes from process to process.
    config["target_modules"] = sorted(config["target_modules"])
    if config.get("modules_to_save"):
        config["modules_to_save"] = sorted(config["modules_to_save"])
    _write_json(file, config)


def _scrub_tokenizer_config(file: Path) -> None:
    """Removes what transformers notes of how this process loaded the tokenizer."""
    config = json.loads(file.read_text(encoding="utf-8"))
    for key in _OF_THIS_PROCESS:
        config.pop(key, None)
    _write_json(file, config)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
