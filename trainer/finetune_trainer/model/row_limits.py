"""Checks that the tokenised rows fit the model. Otherwise torch raises an IndexError, or a CUDA assertion fails."""

from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError


def require_rows_fit(model: Any, *, longest: int, largest_id: int, max_length: int) -> None:
    """Requires that the tokenised rows fit the model's number of positions and of embeddings.

    Args:
        model: the base model.
        longest: tokens of the longest row.
        largest_id: the largest token id of all rows.
        max_length: dataset.maxLength.

    Raises:
        TrainerError: INVALID_SPEC, a row has more tokens than the model has positions; MODEL_INVALID, the model has
            no embedding for a token id.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and 0 < positions < longest:
        raise TrainerError(
            FailureReason.INVALID_SPEC,
            f"spec.dataset.maxLength: {max_length}: the longest row has {longest} tokens, and this model has "
            f"{positions} positions; use {positions} or less, then longer rows are cut",
        )
    embeddings = model.get_input_embeddings().num_embeddings
    if largest_id >= embeddings:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"the tokenizer gives the token id {largest_id}, and the model has embeddings for {embeddings} ids only: "
            "tokenizer and weights do not belong together, or tokens were added without resizing the model",
        )
