"""The tokenizer's folder as users get it: without settings of this process, with the chat template of the training."""

import json
from pathlib import Path
from typing import Any

from finetune_trainer.data.templates.chat import for_servers

_OF_THIS_PROCESS = ("is_local", "local_files_only", "name_or_path", "trust_remote_code")


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Saves the tokenizer into `folder`; marks of its chat template become comments, which every server reads."""
    tokenizer.save_pretrained(str(folder))
    config, template = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    kept = {key: value for key, value in _read(config).items() if key not in _OF_THIS_PROCESS}
    config.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    if template.is_file():
        template.write_text(for_servers(template.read_text(encoding="utf-8")), encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
