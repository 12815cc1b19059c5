"""The tensors of one optimizer step, and the micro-batches that it is split into.

A step is one flat sequence, all rows one after the other. A row is one sequence of tokens, or a pair of two, which stay
together in a micro-batch. How it is split (packed or padded, how many tokens a
micro-batch) is decided where the micro-batches run, and can change between two steps.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from finetune_trainer.data.packing import pack_rows, pack_rows_for_ranks
from finetune_trainer.model.attention import cu_seq_lens_arguments

IGNORED = -100
"""The label of a token that does not count in the loss (torch's cross entropy)."""

ModelInputs = dict[str, Any]
"""A step or a micro-batch by the model's argument names: tensors, and two lengths that varlen attention takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRows:
    """The pairs of a micro-batch.

    Attributes:
        rows: which rows of the step they are.
        lengths: tokens of each sequence where all stand in one row; None where each has a row of its own.
        reference: their log-probabilities under the reference model, shape (pairs, 2); None where they are not known.
    """

    rows: list[int]
    lengths: list[int] | None
    reference: torch.Tensor | None


def collate_rows(rows: Sequence[dict[str, Any]]) -> ModelInputs:
    """Joins rows of `input_ids` and `labels` (equally long lists of ints) to one step.

    Rows of several sequences have `lengths` besides, the tokens of each. Pairs may have `reference`, two numbers.

    Returns:
        `input_ids` and `labels`, both of shape (1, tokens of all rows), and `lengths` of shape (sequences,). The first
        label of every sequence is ignored, since nothing comes before it that could predict it. With pairs that have
        one, also `reference` of shape (pairs, 2).
    """
    lengths = [length for row in rows for length in row.get("lengths") or [len(row["input_ids"])]]
    step = {
        "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]], dtype=torch.long),
        "labels": torch.tensor([[label for row in rows for label in row["labels"]]], dtype=torch.long),
        "lengths": torch.tensor(lengths, dtype=torch.long),
    }
    step["labels"][0, step["lengths"].cumsum(0) - step["lengths"]] = IGNORED
    if "reference" in rows[0]:
        step["reference"] = torch.tensor([row["reference"] for row in rows], dtype=torch.float32)
    return step


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatches:
    """How a step is split into micro-batches: one forward and backward pass each.

    Attributes:
        packed: rows one after the other in one sequence; otherwise side by side with padding.
        varlen: tell the attention where the rows of a pack begin; only varlen attention takes that.
        max_tokens: most tokens of a micro-batch.
        max_rows: most rows of a micro-batch.
        pad_id: id that fills padded rows.
        sequences_per_row: 1, or 2 where rows are pairs.
        never_mixed_above: rows with more tokens share no micro-batch with others. Their position embeddings differ
            (model/position_scaling.py).
    """

    packed: bool
    varlen: bool = False
    max_tokens: int
    max_rows: int
    pad_id: int
    sequences_per_row: int = 1
    never_mixed_above: int | None = None

    def split(self, step: ModelInputs, *, rank: int = 0, ranks: int = 1) -> Iterator[ModelInputs]:
        """The model's inputs, one micro-batch after the other: `input_ids` and `labels`. With pairs also `pairs`.

        Packs also have `position_ids`, padded ones `attention_mask`. With `varlen` packs also have the result of
        `model.attention.cu_seq_lens_arguments`.

        Args:
            step: the step.
            rank: which process asks, of `ranks`: it gets its share, which may be none.
            ranks: processes that share the step.
        """
        lengths: list[int] = step["lengths"].tolist()
        ids, labels = torch.split(step["input_ids"][0], lengths), torch.split(step["labels"][0], lengths)
        for rows in self._grouped(lengths, ranks)[rank::ranks]:
            places = [row * self.sequences_per_row + number for row in rows for number in range(self.sequences_per_row)]
            chosen_ids, chosen_labels = [ids[place] for place in places], [labels[place] for place in places]
            if self.packed:
                inputs = packed_micro_batch(chosen_ids, chosen_labels, varlen=self.varlen)
            else:
                inputs = padded_micro_batch(chosen_ids, chosen_labels, pad_id=self.pad_id)
            if self.sequences_per_row > 1:
                inputs["pairs"] = PairRows(
                    rows=rows,
                    lengths=[lengths[place] for place in places] if self.packed else None,
                    reference=step["reference"][rows] if "reference" in step else None,
                )
            yield inputs

    def rounds(self, step: ModelInputs, *, ranks: int) -> int:
        """How many micro-batches the process with the most of them has."""
        return -(-len(self._grouped(step["lengths"].tolist(), ranks)) // ranks)

    def _longest(self, lengths: list[int]) -> list[int]:
        """Tokens of each row's longest sequence."""
        size = self.sequences_per_row
        return [max(lengths[place : place + size]) for place in range(0, len(lengths), size)]

    def _kinds(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the rows that may share a micro-batch."""
        limit = self.never_mixed_above
        kinds: tuple[list[int], ...] = ([], []) if limit is not None else ([],)
        for row, length in enumerate(self._longest(lengths)):
            kinds[limit is not None and length > limit].append(row)
        return [rows for rows in kinds if rows]

    def _padded_lengths(self, lengths: list[int]) -> list[int]:
        """Tokens that each row takes: padded, every sequence takes as much room as the longest of its kind."""
        size = self.sequences_per_row
        if self.packed:
            return [sum(lengths[place : place + size]) for place in range(0, len(lengths), size)]
        padded = self._longest(lengths)
        for rows in self._kinds(lengths):
            longest = max(padded[row] for row in rows)
            for row in rows:
                padded[row] = size * longest
        return padded

    def _grouped(self, lengths: list[int], ranks: int) -> list[list[int]]:
        padded = self._padded_lengths(lengths)
        groups: list[list[int]] = []
        for rows in self._kinds(lengths):
            own = [padded[row] for row in rows]
            if ranks == 1:
                found = pack_rows(own, max_tokens=self.max_tokens, max_rows=self.max_rows)
            else:
                found = pack_rows_for_ranks(own, ranks=ranks, max_tokens=self.max_tokens, max_rows=self.max_rows)
            groups += [[rows[index] for index in group] for group in found]
        return groups

    def halved(self, step: ModelInputs, *, ranks: int = 1) -> "MicroBatches | None":
        """A split whose largest micro-batch of that step is at most half as large; None when every row is alone.

        The step stays the same: more micro-batches, each with the same weight per token.
        """
        lengths: list[int] = step["lengths"].tolist()
        lengths_padded = self._padded_lengths(lengths)
        micro_batches = self._grouped(lengths, ranks)
        largest = max(
            (rows for rows in micro_batches if len(rows) > 1),
            key=lambda rows: sum(lengths_padded[row] for row in rows),
            default=None,
        )
        if largest is None:
            return None
        return replace(
            self, max_tokens=sum(lengths_padded[row] for row in largest) // 2, max_rows=max(1, (len(largest) + 1) // 2)
        )

    def to_text(self) -> str:
        """As text; `from_text` reads it back."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_text(cls, text: str) -> "MicroBatches":
        """What `to_text` has made."""
        return cls.from_dict(json.loads(text))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MicroBatches":
        """What `to_dict` has made."""
        return cls(**values)


def packed_micro_batch(ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], *, varlen: bool) -> ModelInputs:
    """Rows one after the other; positions begin at 0 in each, from which the model's mask keeps them apart.

    Args:
        ids: the rows' tokens.
        labels: the rows' labels.
        varlen: the model has varlen attention, which needs the borders of the rows instead.
    """
    positions = torch.cat([torch.arange(len(row), device=row.device) for row in ids])
    apart = cu_seq_lens_arguments([len(row) for row in ids], ids[0].device) if varlen else {}
    return {
        "input_ids": torch.cat(list(ids))[None],
        "labels": torch.cat(list(labels))[None],
        "position_ids": positions[None],
        **apart,
    }


def padded_micro_batch(ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], *, pad_id: int) -> ModelInputs:
    """Rows side by side, filled with padding at their ends, which the attention mask leaves out.

    Args:
        ids: the rows' tokens.
        labels: the rows' labels.
        pad_id: id that fills the rows.
    """
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(list(ids), batch_first=True, padding_value=pad_id),
        "labels": pad(list(labels), batch_first=True, padding_value=IGNORED),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
    }
