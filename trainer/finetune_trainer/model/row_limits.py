"""Checks that tokenised rows fit the model. Otherwise torch raises an IndexError, or a CUDA assertion fails."""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.memory.shape import text_config


def require_rows_fit(
    config: Mapping[str, Any], embeddings: int | None, *, longest: int, largest_id: int, max_length: int
) -> None:
    """Requires that the tokenised rows fit the model's number of positions and of embeddings.

    Preflight and the training both ask: the first by config.json, the second by the loaded model.

    Args:
        config: the model's config.json.
        embeddings: number of token ids that have an embedding; None for `vocab_size` of the config.
        longest: tokens of the longest row, after it was cut.
        largest_id: the largest token id of all rows.
        max_length: dataset.maxLength.

    Raises:
        TrainerError: INVALID_SPEC, a row has more tokens than the model has positions; MODEL_INVALID, the model has
            no embedding for a token id.
    """
    sizes = text_config(config)
    positions = sizes.get("max_position_embeddings")
    if isinstance(positions, int) and 0 < positions < longest:
        raise TrainerError(
            FailureReason.INVALID_SPEC,
            f"spec.dataset.maxLength: {max_length}: the longest row has {longest} tokens, and this model has "
            f"{positions} positions; use {positions} or less, then longer rows are cut",
        )
    if embeddings is None:
        embeddings = sizes.get("vocab_size")
    if isinstance(embeddings, int) and largest_id >= embeddings:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"the tokenizer gives the token id {largest_id}, and the model has embeddings for {embeddings} ids only: "
            "tokenizer and weights do not belong together, or tokens were added without resizing the model",
        )
