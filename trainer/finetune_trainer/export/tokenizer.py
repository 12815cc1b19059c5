"""The tokenizer's folder as users get it: the base model's own files, with the chat template of the training.

Training changes nothing in a tokenizer but its chat template. So its files are copied as the base model has them, and
load wherever the base model's do. transformers would write its own class and keys, which older versions cannot read.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.data.templates.chat import for_servers, template_of

_CONFIG, _TOKENIZER, _TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
_FILES = (
    _TOKENIZER,
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
_OF_THIS_PROCESS = ("is_local", "local_files_only", "name_or_path", "trust_remote_code")


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes the tokenizer's files into `folder`.

    Marks of the chat template become comments, which every server reads. A model without tokenizer.json gets the files
    that transformers makes of its own.
    """
    base = Path(tokenizer.name_or_path)
    if (base / _TOKENIZER).is_file() and (base / _CONFIG).is_file():
        for name in _FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, folder / name)
        config = {key: value for key, value in _read(base / _CONFIG).items() if key != "chat_template"}
    else:
        tokenizer.save_pretrained(str(folder))
        config = _read(folder / _CONFIG)
    kept = {key: value for key, value in config.items() if key not in _OF_THIS_PROCESS}
    text = json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / _CONFIG).write_text(text, encoding="utf-8")
    template = template_of(tokenizer.chat_template)
    if template is not None:
        (folder / _TEMPLATE).write_text(for_servers(template), encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
