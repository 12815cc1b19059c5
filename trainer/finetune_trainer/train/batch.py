"""The tensors of one optimizer step, and of the forward passes it is divided into.

A step travels as one flat sequence, all rows one after the other, so that the way it is divided (packed or padded, how
many tokens a pass) is decided where the passes run, and can change between two steps.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from finetune_trainer.data.pack import divide, spread
from finetune_trainer.model.attention import borders

IGNORED = -100
"""The label of a token that does not count in the loss (torch's cross entropy)."""

Tensors = dict[str, Any]
"""A step or a pass by the names of the model's arguments: tensors, and two lengths that varlen attention takes."""


def flat_step(rows: Sequence[dict[str, Any]]) -> Tensors:
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
class Passes:
    """How a step is divided into forward passes.

    Attributes:
        packed: rows one after the other in one sequence; otherwise side by side with padding.
        varlen: tell the attention where the rows of a pack begin; only varlen attention takes that.
        max_tokens: most tokens of a pass.
        max_rows: most rows of a pass.
        pad_id: id that fills padded rows.
    """

    packed: bool
    varlen: bool = False
    max_tokens: int
    max_rows: int
    pad_id: int

    def of(self, step: Tensors, *, rank: int = 0, ranks: int = 1) -> Iterator[Tensors]:
        """The model's inputs, pass by pass: `input_ids` and `labels`; for packs `position_ids`, else `attention_mask`.

        With `varlen` also what `model.attention.borders` makes.

        Args:
            step: the step.
            rank: which process asks, of `ranks`: it gets its share of the passes, which may be none.
            ranks: processes that share the step.
        """
        lengths: list[int] = step["lengths"].tolist()
        ids, labels = torch.split(step["input_ids"][0], lengths), torch.split(step["labels"][0], lengths)
        for rows in self._divided(self._room(lengths), ranks)[rank::ranks]:
            chosen_ids, chosen_labels = [ids[row] for row in rows], [labels[row] for row in rows]
            if self.packed:
                yield packed_pass(chosen_ids, chosen_labels, varlen=self.varlen)
            else:
                yield self._padded(chosen_ids, chosen_labels)

    def rounds(self, step: Tensors, *, ranks: int) -> int:
        """How many passes the process with the most of them has."""
        return -(-len(self._divided(self._room(step["lengths"].tolist()), ranks)) // ranks)

    def _room(self, lengths: list[int]) -> list[int]:
        """Tokens that each row takes: padded, every row takes as much room as the longest."""
        return lengths if self.packed else [max(lengths)] * len(lengths)

    def _divided(self, room: list[int], ranks: int) -> list[list[int]]:
        if ranks == 1:
            return divide(room, max_tokens=self.max_tokens, max_rows=self.max_rows)
        return spread(room, ranks=ranks, max_tokens=self.max_tokens, max_rows=self.max_rows)

    def smaller(self, step: Tensors, *, ranks: int = 1) -> "Passes | None":
        """A division whose largest pass of that step is at most half as large; None when every row goes alone.

        The step stays the same: more passes, each with the same weight per token.
        """
        lengths: list[int] = step["lengths"].tolist()
        room = self._room(lengths)
        passes = self._divided(room, ranks)
        largest = max(
            (rows for rows in passes if len(rows) > 1), key=lambda rows: sum(room[row] for row in rows), default=None
        )
        if largest is None:
            return None
        return replace(
            self, max_tokens=sum(room[row] for row in largest) // 2, max_rows=max(1, (len(largest) + 1) // 2)
        )

    def to_text(self) -> str:
        """As text; `from_text` reads it back."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_text(cls, text: str) -> "Passes":
        """What `to_text` has made."""
        return cls.from_dict(json.loads(text))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Passes":
        """What `to_dict` has made."""
        return cls(**values)

    def _padded(self, ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> Tensors:
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(list(ids), batch_first=True, padding_value=self.pad_id),
            "labels": pad(list(labels), batch_first=True, padding_value=IGNORED),
            "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        }


def packed_pass(ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], *, varlen: bool) -> Tensors:
    """Rows one after the other; positions begin at 0 in each, from which the model's mask keeps them apart.

    Args:
        ids: the rows' tokens.
        labels: the rows' labels.
        varlen: the model has varlen attention, which needs the borders of the rows instead.
    """
    positions = torch.cat([torch.arange(len(row), device=row.device) for row in ids])
    apart = borders([len(row) for row in ids], ids[0].device) if varlen else {}
    return {
        "input_ids": torch.cat(list(ids))[None],
        "labels": torch.cat(list(labels))[None],
        "position_ids": positions[None],
        **apart,
    }
