"""Prompts are put as a server puts them, and answered as transformers' greedy generation answers them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.data.tokenization.prompt_encoder import PromptEncoder
from finetune_trainer.model.base import without_adapter
from finetune_trainer.model.load import load_base
from finetune_trainer.train.build_trainer import build_trainer
from finetune_trainer.train.hooks import TrainerHooks
from finetune_trainer.train.samples import MOST_NEW_TOKENS, generate_answers, tokenize_prompts
from finetune_trainer.train.token_dataset import write_rows
from finetune_trainer.train.trainer import StepTrainer
from trainer.families import FAMILIES, family_tokenizer
from trainer.running import recipe_of
from trainer.test_evaluation import ROWS

pytestmark = pytest.mark.trainer
END_OF_TURN = {
    "llama-2": "</s>", "llama-3": "<|eot_id|>", "chatml": "<|im_end|>", "mistral": "</s>", "gemma": "<end_of_turn>",
    "qwen": "<|im_end|>", "phi": "<|end|>",
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_a_turn_and_the_end_of_turn_ends_the_answer(family: str, tiny_model: Path) -> None:
    tokenizer = family_tokenizer(family, tiny_model)
    tokenizer.chat_template = template_source(family)

    prompt_encoder = PromptEncoder(tokenizer, conversations=True)

    turn = [{"role": "user", "content": "How do I reset my password?"}]
    # The marks of `generation` blocks are transformers' too.
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert list(prompt_encoder("How do I reset my password?")) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompt_encoder.stop_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END_OF_TURN[family])}


def test_where_rows_are_no_conversations_a_prompt_begins_a_text(tokenizer: Any) -> None:
    prompt_encoder = PromptEncoder(tokenizer, conversations=False)

    assert (
        list(prompt_encoder("<s>Water boils"))
        == list(prompt_encoder("Water boils"))
        == tokenizer("Water boils")["input_ids"]
    )
    assert prompt_encoder.stop_ids == {tokenizer.eos_token_id}


@pytest.fixture
def beats() -> list[None]:
    """Grows with every heartbeat of the trainer."""
    return []


@pytest.fixture
def trained(tiny_model: Path, tokenizer: Any, tmp_path: Path, beats: list[None]) -> StepTrainer:
    """A trainer after two steps, which change the answers."""
    training = {"learningRate": "5e-2", "maxSteps": 2, "batchSize": 4}
    recipe = recipe_of(tiny_model, tmp_path, tmp_path, training=training)
    base = load_base(tiny_model, recipe.model, torch.float32)
    rows = write_rows(iter(ROWS), tmp_path / "rows.arrow")
    hooks = TrainerHooks(heartbeat=lambda: beats.append(None))
    trainer = build_trainer(recipe, base, tokenizer, rows, torch.float32, tmp_path / "work", [], hooks)
    trainer.train_from(None)
    return trainer


def test_answers_are_those_of_greedy_generation(trained: StepTrainer, tokenizer: Any, tiny_model: Path) -> None:
    prompts = tokenize_prompts(["Water boils at", "Question: What is"], tokenizer, conversations=False)

    tuned = generate_answers(trained, tokenizer, prompts)
    with without_adapter(trained.model, trained.base_weights):
        untuned = generate_answers(trained, tokenizer, prompts)

    recipe = recipe_of(tiny_model, tiny_model, tiny_model)
    alone = load_base(tiny_model, recipe.model, torch.float32).eval()
    assert untuned == [_generated(alone, tokenizer, text) for text in prompts.texts]
    assert tuned == [_generated(trained.model.eval(), tokenizer, text) for text in prompts.texts]
    assert tuned != untuned


def test_an_answer_ends_where_the_model_has_no_more_places(
    trained: StepTrainer, tokenizer: Any, beats: list[None]
) -> None:
    prompts = tokenize_prompts(["Water boils at"], tokenizer, conversations=False)
    trained.model.config.max_position_embeddings = len(prompts.ids[0]) + 3

    generate_answers(trained, tokenizer, prompts)

    assert len(beats) <= 3


def _generated(model: Any, tokenizer: Any, text: str) -> str:
    inputs = tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        found = model.generate(
            **inputs, max_new_tokens=MOST_NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.eos_token_id
        )
    answer: str = tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    return answer
