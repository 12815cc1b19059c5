"""The data as token rows on disk: training rows and validation rows.

Validation rows go through the same reading, templates and cut as the others, and none of them is trained.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import DatasetSpec
from finetune_trainer.contract.uri import Scheme
from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.examples import Conversation, Example, Preference
from finetune_trainer.data.read_examples import for_validation, read_examples
from finetune_trainer.data.split import Keys, also_in, held_out, row_key
from finetune_trainer.data.templates.choose import only_conversations
from finetune_trainer.data.tokenization.tokenize import token_rows
from finetune_trainer.data.tokenization.tokens import TokenCounts, TokenPair, TokenRow
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.token_dataset import (
    file_of,
    read_rows,
    split_rows,
    token_count,
    trained_token_count,
    write_rows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedData:
    """The rows.

    Attributes:
        rows: dataset of `input_ids`, `labels` and `lengths`, on disk: what is trained.
        validation: such a dataset of the rows that are kept out; None when none are asked for.
        counts: what became of all rows that were read; nothing in a process that takes those of another.
        conversations: whether the rows are conversations, which a chat template has made text.
    """

    rows: Any
    validation: Any
    counts: TokenCounts
    conversations: bool


def tokenize_data_once(recipe: Recipe, inputs: Inputs, tokenizer: Any, context: Context) -> TokenizedData:
    """The rows; of several processes in a pod the first one reads them, for all.

    Raises:
        TrainerError: see `tokenize_data`; or another process failed.
    """
    process_group = context.process_group
    if process_group is None:
        return tokenize_data(recipe, inputs, tokenizer, context)
    place = f"rows/{process_group.world.node}"
    if process_group.is_local_main_process:
        data = tokenize_data(recipe, inputs, tokenizer, context)
        files = [None if rows is None else str(file_of(rows)) for rows in (data.rows, data.validation)]
        process_group.publish(place, json.dumps([*files, data.conversations]))
        return data
    rows, validation, conversations = json.loads(process_group.wait_for(place))
    return TokenizedData(
        rows=read_rows(Path(rows)),
        validation=None if validation is None else read_rows(Path(validation)),
        counts=TokenCounts(),
        conversations=conversations,
    )


def tokenize_data(recipe: Recipe, inputs: Inputs, tokenizer: Any, context: Context) -> TokenizedData:
    """Reads the training rows, and the validation rows where they are asked for.

    Raises:
        TrainerError: a row is wrong, or none is left to train or to measure with; or the process was asked to stop.
    """
    data = _read_rows(recipe, recipe.rows, inputs.dataset, tokenizer, context, "rows")
    counts = data.counts
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
    spec = recipe.dataset.validation
    if spec is None:
        return TokenizedData(rows=data.rows, validation=None, counts=counts, conversations=data.conversations)
    if spec.fraction is not None:
        split_data = _held_out(data, float(spec.fraction), context.work)
    else:
        own = _read_rows(recipe, for_validation(recipe.rows), inputs.validation, tokenizer, context, "own-validation")
        split_data = _without_trained(data, own, context.work)
    event("validation", rows=split_data.counts.validation, trained_too=split_data.counts.trained_too or None)
    return split_data


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyedRows:
    """Rows that were read, and a key for each."""

    rows: Any
    keys: Keys
    counts: TokenCounts
    conversations: bool


def _read_rows(
    recipe: Recipe, dataset: DatasetSpec, objects: Sequence[SourceObject], tokenizer: Any, context: Context, name: str
) -> _KeyedRows:
    counts, repeated, kinds = TokenCounts(), DuplicateCounter(), set[type[Example]]()
    keys = array("Q")
    examples = read_examples(dataset, objects, context.open_store, _counted(objects, context), repeated)
    examples = _noting_kinds(only_conversations(examples, dataset.chat_template), kinds)
    rows = token_rows(examples, tokenizer, loss=dataset.loss, max_length=dataset.max_length, counts=counts)
    keyed = _keyed(map(context.unless_stopping, rows), recipe.training.seed, keys)
    written = write_rows(keyed, context.work / f"{name}.arrow")
    counts.duplicates = repeated.count
    if not counts.rows:
        message = f"no row has a token to train: {counts.dropped} of {counts.dropped} rows were dropped"
        where = "" if name == "rows" else "spec.dataset.validation.uri: "
        raise TrainerError(
            FailureReason.DATASET_INVALID, f"{where}{message} (dataset.maxLength is {dataset.max_length} tokens)"
        )
    return _KeyedRows(
        rows=written, keys=np.asarray(keys, dtype=np.uint64), counts=counts, conversations=Conversation in kinds
    )


def _counted(objects: Sequence[SourceObject], context: Context) -> ByteCount:
    """Counts the stored bytes that are read; those of Hub data are counted already, when they were fetched."""
    counted_before = sum(item.size for item in objects if item.location.scheme is Scheme.HF)

    def count(read: int) -> None:
        nonlocal counted_before
        again = min(read, counted_before)
        counted_before -= again
        context.downloaded(read - again)

    return count


def _noting_kinds(examples: Iterable[Example], kinds: set[type[Example]]) -> Iterator[Example]:
    for example in examples:
        kinds.add(type(example.chosen if isinstance(example, Preference) else example))
        yield example


def _keyed(rows: Iterable[TokenRow | TokenPair], seed: int, keys: "array[int]") -> Iterator[TokenRow | TokenPair]:
    for row in rows:
        keys.append(row_key([token for sequence in row.sequences for token in sequence.ids], seed))
        yield row


def _held_out(data: _KeyedRows, fraction: float, folder: Path) -> TokenizedData:
    """The rows with a part of them held out.

    Raises:
        TrainerError: all rows are equal, so none is left to train.
    """
    chosen = held_out(data.keys, fraction)
    if chosen.all():
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"spec.dataset.validation.fraction: {len(chosen)} rows that are all the same cannot be divided; use rows "
            "of their own (validation.uri), or remove the section",
        )
    rows, validation = split_rows(data.rows, chosen, folder / "training.arrow", folder / "validation.arrow")
    counts = replace(
        data.counts,
        rows=len(rows),
        tokens=token_count(rows),
        trained_tokens=trained_token_count(rows),
        validation=len(validation),
    )
    return TokenizedData(rows=rows, validation=validation, counts=counts, conversations=data.conversations)


def _without_trained(data: _KeyedRows, own: _KeyedRows, folder: Path) -> TokenizedData:
    """The rows with validation rows of their own, without those that are trained.

    Raises:
        TrainerError: all of them are.
    """
    repeated = also_in(own.keys, data.keys)
    if repeated.all():
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"spec.dataset.validation.uri: each of its {len(repeated)} rows is a training row too, and what is trained "
            "measures nothing; use other rows, or validation.fraction",
        )
    validation = own.rows
    if repeated.any():
        validation, _ = split_rows(own.rows, repeated, folder / "validation.arrow", folder / "trained-too.arrow")
    counts = replace(data.counts, validation=len(validation), trained_too=int(repeated.sum()))
    return TokenizedData(rows=data.rows, validation=validation, counts=counts, conversations=data.conversations)
