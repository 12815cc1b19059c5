"""Loads what a training is made of: tokenizer, rows as tokens, prompts, base model."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.model import Sharding
from finetune_trainer.data.templates.choose import use_chat_template
from finetune_trainer.model.load import compute_dtype, load_base
from finetune_trainer.model.model_types import require_mergeable, require_quantizable
from finetune_trainer.model.row_limits import require_rows_fit
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.samples import Prompts, tokenize_prompts
from finetune_trainer.train.token_dataset import largest_id, longest_sequence
from finetune_trainer.train.tokenized_data import TokenizedData, tokenize_data_once
from finetune_trainer.train.validation_loss import ValidationRows

if TYPE_CHECKING:
    from finetune_trainer.distributed.process_group import ProcessGroup
    from finetune_trainer.model.sharded_weights import ShardedWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAndData:
    """All of it, fitting together.

    Attributes:
        tokenizer: with the chat template that the rows were made with.
        data: the rows as tokens.
        validation: the validation rows; None when there are none.
        prompts: those that base and tuned model are to answer.
        base: the base model, quantised.
        config: its config.json.
        dtype: number type of the products.
        sharded_weights: how the base model's weights are divided over the processes; None where each has all.
    """

    tokenizer: Any
    data: TokenizedData
    validation: ValidationRows | None
    prompts: Prompts
    base: Any
    config: Mapping[str, Any]
    dtype: torch.dtype
    sharded_weights: "ShardedWeights | None" = None


def load_model_and_data(recipe: Recipe, inputs: Inputs, model: Path, context: Context) -> ModelAndData:
    """Loads them; `model` is the base model's folder.

    The base model is read while the rows are tokenised: one waits for the disk and the GPU, the other computes.

    Raises:
        TrainerError: a row is wrong, or none is left; the model's files are damaged or do not fit the rows; or the
            process was asked to stop. It comes once the base model is read, which nothing can interrupt.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    require_mergeable(recipe.output.merged, config)
    require_quantizable(recipe.model.quantization.type, config)
    dtype = compute_dtype(recipe.model.quantization.compute_dtype)
    tokenizer = load_tokenizer(model)
    use_chat_template(tokenizer, recipe.dataset.chat_template)
    sharded_weights = _sharded_weights(recipe, context.process_group)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="base-model") as loader:
        loading = loader.submit(load_base, model, recipe.model, dtype, sharded_weights)
        data = tokenize_data_once(recipe, inputs, tokenizer, context)
        prompts = tokenize_prompts(recipe.evaluation.sample_prompts or (), tokenizer, conversations=data.conversations)
    context.raise_if_stopping()
    base = loading.result()
    for rows in (data.rows, *([data.validation] if data.validation is not None else [])):
        require_rows_fit(
            base.config.get_text_config().to_dict(),
            base.get_input_embeddings().num_embeddings,
            longest=longest_sequence(rows),
            largest_id=largest_id(rows),
            max_length=recipe.dataset.max_length,
        )
    context.raise_if_stopping()
    return ModelAndData(
        tokenizer=tokenizer,
        data=data,
        validation=ValidationRows(data.validation) if data.validation is not None else None,
        prompts=prompts,
        base=base,
        config=config,
        dtype=dtype,
        sharded_weights=sharded_weights,
    )


def _sharded_weights(recipe: Recipe, process_group: "ProcessGroup | None") -> "ShardedWeights | None":
    if recipe.model.sharding is not Sharding.FULL or process_group is None:
        return None
    from finetune_trainer.model.sharded_weights import ShardedWeights

    trained = [f".{name}." for name in recipe.lora.modules_to_save or ()]
    return ShardedWeights(process_group, is_ignored=lambda weight: any(name in f".{weight}" for name in trained))
