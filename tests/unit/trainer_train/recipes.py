"""Recipes for tests."""

from typing import Any

from finetune_trainer.contract.recipe import Recipe


def recipe(**sections: Any) -> Recipe:
    """Returns a recipe with the three required facts. Keyword arguments are sections of it."""
    base: dict[str, Any] = {
        "job": {"name": "support-bot"},
        "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
        "dataset": {"uri": "s3://data/train.jsonl"},
        "output": {"uri": "s3://models/adapters"},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return Recipe.model_validate(base)
