"""What a training is made of: the tokenizer, the rows as tokens, the base model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.read import read_examples
from finetune_trainer.data.templates.choose import only_conversations, use_chat_template
from finetune_trainer.data.tokenize import token_rows
from finetune_trainer.data.tokens import TokenCounts
from finetune_trainer.log import event
from finetune_trainer.model.fit import require_fit
from finetune_trainer.model.load import compute_dtype, load_base, load_tokenizer
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.rows import largest_id, longest_row, write_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """All of it, fitting together.

    Attributes:
        tokenizer: with the chat template that the rows were made with.
        rows: dataset of `input_ids` and `labels`, on disk.
        counts: what became of the rows that were read.
        base: the base model, quantised.
        dtype: number type of the products.
    """

    tokenizer: Any
    rows: Any
    counts: TokenCounts
    base: Any
    dtype: torch.dtype


def load_materials(recipe: Recipe, inputs: Inputs, model: Path, context: Context) -> Materials:
    """Loads them; `model` is the base model's folder.

    Raises:
        TrainerError: a row is wrong, or none is left; the model's files are damaged or do not fit the rows; or the
            process was told to go.
    """
    dtype = compute_dtype(recipe.model.quantization.compute_dtype)
    tokenizer = load_tokenizer(model)
    use_chat_template(tokenizer, recipe.dataset.chat_template)
    rows, counts = tokenised(recipe, inputs, tokenizer, context)
    context.leave_if_told()
    base = load_base(model, recipe.model, dtype)
    length = recipe.dataset.max_length
    require_fit(base, longest=longest_row(rows), largest_id=largest_id(rows), max_length=length)
    context.leave_if_told()
    return Materials(tokenizer=tokenizer, rows=rows, counts=counts, base=base, dtype=dtype)


def tokenised(recipe: Recipe, inputs: Inputs, tokenizer: Any, context: Context) -> tuple[Any, TokenCounts]:
    """The rows as tokens, on disk, and what became of them.

    Raises:
        TrainerError: a row is wrong, or none is left; or the process was told to go.
    """
    dataset, counts, repeated = recipe.dataset, TokenCounts(), DuplicateCounter()
    examples = read_examples(dataset, inputs.dataset, context.open_store, context.downloaded, repeated)
    examples = only_conversations(examples, dataset.chat_template)
    rows = token_rows(examples, tokenizer, loss=dataset.loss, max_length=dataset.max_length, counts=counts)
    written = write_rows(map(context.unless_told, rows), context.work / "rows.arrow")
    counts.duplicates = repeated.count
    event(
        "dataset",
        rows=counts.rows,
        tokens=counts.tokens,
        trained_tokens=counts.trained_tokens,
        truncated=counts.truncated,
        dropped=counts.dropped,
        longest=counts.longest,
        duplicates=counts.duplicates,
    )
    if not counts.rows:
        message = f"no row has a token to train: {counts.dropped} of {counts.dropped} rows were dropped"
        raise TrainerError(
            FailureReason.DATASET_INVALID, f"{message} (dataset.maxLength is {dataset.max_length} tokens)"
        )
    return written, counts
