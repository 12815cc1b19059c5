"""Rows of NeMo RL: turns under `context`, and two `completions` with their ranks, of which the lower one is better."""

from collections.abc import Sequence
from typing import Final

from finetune_trainer.data.examples import Example, RowLocation
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.preference import PreferenceForm, PreferenceSchema
from finetune_trainer.data.schemas.prompt_turns import PromptTurnsSchema

_CONTEXT: Final = "context"
_COMPLETIONS: Final = "completions"
_CHOSEN, _REJECTED = f"{_COMPLETIONS}[lower rank]", f"{_COMPLETIONS}[higher rank]"
"""Where the answers stand, for messages."""


class RankedCompletions(PreferenceSchema):
    """Pairs whose order a rank says.

    Args:
        ignored: columns that the user has decided not to use.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        better, worse = (PromptTurnsSchema(_CONTEXT, answer, "role", "content") for answer in (_CHOSEN, _REJECTED))
        form = PreferenceForm(
            columns=f"{_CONTEXT} with role and content, and two {_COMPLETIONS} with rank and completion",
            chosen=better,
            rejected=worse,
            fits=lambda row: isinstance(row.get(_CONTEXT), list),
        )
        super().__init__(form, _CHOSEN, _REJECTED, ignored)

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return super().reads | {_COMPLETIONS}

    def fits(self, row: Row) -> bool:
        """See `RowSchema`."""
        completions = row.get(_COMPLETIONS)
        first = completions[0] if isinstance(completions, list) and completions else None
        return isinstance(first, dict) and "rank" in first and isinstance(row.get(_CONTEXT), list)

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`."""
        ordered = _ordered(row)
        return [_no_pair(row)] if ordered is None else super().faults(ordered)

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        ordered = _ordered(row)
        return None if ordered is None else super().key(ordered)

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        ordered = _ordered(row)
        assert ordered is not None, "such a row has a fault"
        return super().build(ordered, place)


def _ordered(row: Row) -> Row | None:
    """The row with its answers by their order; None unless it has two completions of different ranks."""
    completions = row.get(_COMPLETIONS)
    if not isinstance(completions, list) or len(completions) != 2:
        return None
    ranked = [
        (item["rank"], item["completion"])
        for item in completions
        if isinstance(item, dict)
        and isinstance(item.get("rank"), int | float)
        and not isinstance(item["rank"], bool)
        and item.get("completion") is not None
    ]
    if len(ranked) != 2 or ranked[0][0] == ranked[1][0]:
        return None
    (_, better), (_, worse) = sorted(ranked, key=lambda item: item[0])
    others = {name: value for name, value in row.items() if name != _COMPLETIONS}
    return {**others, _CHOSEN: better, _REJECTED: worse}


def _no_pair(row: Row) -> Fault:
    completions = row.get(_COMPLETIONS)
    several = isinstance(completions, list) and len(completions) > 2
    found = f"{len(completions)} completions" if isinstance(completions, list) and several else shown(completions)
    return Fault(
        kind=ProblemKind.PAIR,
        path=_COMPLETIONS,
        found=found,
        expected="two objects with a completion and a rank, the better answer with the lower rank",
        remedy="write a row for each pair that you want to compare" if several else "rank two different answers",
    )
