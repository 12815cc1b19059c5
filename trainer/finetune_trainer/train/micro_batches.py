"""The tensors of one optimizer step, and the micro-batches that it is split into.

A step is one flat sequence, all rows one after the other. How it is split (packed or padded, how many tokens a
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


def collate_rows(rows: Sequence[dict[str, Any]]) -> ModelInputs:
    """Joins rows of `input_ids` and `labels` (equally long lists of ints) to one step.

    Returns:
        `input_ids` and `labels`, both of shape (1, tokens of all rows), and `lengths` of shape (rows,). The first label
        of every row is ignored, since nothing comes before it that could predict it.
    """
    ids = [token for row in rows for token in row["input_ids"]]
    labels = [label for row in rows for label in [IGNORED, *row["labels"][1:]]]
    return {
        "input_ids": torch.tensor([ids], dtype=torch.long),
        "labels": torch.tensor([labels], dtype=torch.long),
        "lengths": torch.tensor([len(row["input_ids"]) for row in rows], dtype=torch.long),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatches:
    """How a step is split into micro-batches: one forward and backward pass each.

    Attributes:
        packed: rows one after the other in one sequence; otherwise side by side with padding.
        varlen: tell the attention where the rows of a pack begin; only varlen attention takes that.
        max_tokens: most tokens of a micro-batch.
        max_rows: most rows of a micro-batch.
        pad_id: id that fills padded rows.
        never_mixed_above: rows with more tokens share no micro-batch with others. Their position embeddings differ
            (model/position_scaling.py).
    """

    packed: bool
    varlen: bool = False
    max_tokens: int
    max_rows: int
    pad_id: int
    never_mixed_above: int | None = None

    def split(self, step: ModelInputs, *, rank: int = 0, ranks: int = 1) -> Iterator[ModelInputs]:
        """The model's inputs, one micro-batch after the other: `input_ids` and `labels`.

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
            chosen_ids, chosen_labels = [ids[row] for row in rows], [labels[row] for row in rows]
            if self.packed:
                yield packed_micro_batch(chosen_ids, chosen_labels, varlen=self.varlen)
            else:
                yield padded_micro_batch(chosen_ids, chosen_labels, pad_id=self.pad_id)

    def rounds(self, step: ModelInputs, *, ranks: int) -> int:
        """How many micro-batches the process with the most of them has."""
        return -(-len(self._grouped(step["lengths"].tolist(), ranks)) // ranks)

    def _kinds(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the rows that may share a micro-batch."""
        limit = self.never_mixed_above
        kinds: tuple[list[int], ...] = ([], []) if limit is not None else ([],)
        for row, length in enumerate(lengths):
            kinds[limit is not None and length > limit].append(row)
        return [rows for rows in kinds if rows]

    def _padded_lengths(self, lengths: list[int]) -> list[int]:
        """Tokens that each row takes: padded, every row takes as much room as the longest of its kind."""
        padded = list(lengths)
        for rows in () if self.packed else self._kinds(lengths):
            longest = max(lengths[row] for row in rows)
            for row in rows:
                padded[row] = longest
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
