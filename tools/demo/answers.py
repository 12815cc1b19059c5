"""Asks the base model and the tuned model the same questions. The tuned model is the base model with the adapter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEW_TOKENS = 32


@dataclass(frozen=True)
class Answer:
    """One question with the answers of both models."""

    question: str
    base: str
    tuned: str


def ask(model: Path, adapter: Path, questions: Sequence[str]) -> Iterator[Answer]:
    """Returns the answers of greedy decoding, which are the same every time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), adapter)
    for question in questions:
        with tuned.disable_adapter():
            base = _answer(tuned, tokenizer, question)
        yield Answer(question, base, _answer(tuned, tokenizer, question))


def _answer(model: Any, tokenizer: Any, question: str) -> str:
    import torch

    messages = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    text: str = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return " ".join(text.split())
