"""Whether the pairs of a data set agree with themselves: no pair in both directions, no better score for the worse.

A file whose two columns are swapped is valid row by row, and trains the opposite of what was meant.
"""

from collections.abc import Mapping
from typing import Final

from finetune_trainer.data.duplicates import DuplicateCounter
from finetune_trainer.data.problems import Fault, ProblemKind

_SCORES: Final = ("score", "rating", "reward")
_RESPONSE: Final = "_response"
_LEAST_SCORED = 20
"""Scored pairs from which on a majority is more than chance."""
_REMEMBERED_PAIRS = 2_000_000


class PairAgreement:
    """Counts what the rows themselves say about which answer is better.

    Args:
        chosen: the column of the better answer.
        rejected: the column of the worse answer.
        ignored: columns that the user has decided not to use.

    Attributes:
        scored: pairs of which both answers have a score, and not the same one.
        against: those of them whose rejected answer has the higher score.
    """

    def __init__(self, chosen: str, rejected: str, ignored: frozenset[str] = frozenset()) -> None:
        better, worse = chosen.removesuffix(_RESPONSE), rejected.removesuffix(_RESPONSE)
        self._columns = [
            pair
            for score in _SCORES
            for form in ("{0}_{1}", "{1}_{0}", "{0}-{1}")
            if not ignored & set(pair := (form.format(better, score), form.format(worse, score)))
        ]
        self._ordered, self._unordered = DuplicateCounter(_REMEMBERED_PAIRS), DuplicateCounter(_REMEMBERED_PAIRS)
        self._chosen, self._rejected, self._scores = chosen, rejected, ""
        self.scored = self.against = 0

    def add(self, row: Mapping[str, object], better: int, worse: int) -> None:
        """Adds a pair; `better` and `worse` are the keys of its two answers, prompts included."""
        self._ordered.add([hash((better, worse))])
        self._unordered.add([hash((min(better, worse), max(better, worse)))])
        for chosen, rejected in self._columns:
            high, low = row.get(chosen), row.get(rejected)
            if isinstance(high, int | float) and isinstance(low, int | float) and high != low:
                self._scores = chosen
                self.scored += 1
                self.against += high < low
                return

    @property
    def contradictions(self) -> int:
        """Pairs that an earlier pair has in the other order."""
        return self._unordered.count - self._ordered.count

    def fault(self) -> Fault:
        """The fault of data whose answers seem to be in each other's place."""
        return Fault(
            kind=ProblemKind.PAIR,
            path=self._scores,
            found=f"in {self.against:,} of {self.scored:,} pairs with scores the rejected answer has the higher one",
            expected="the better answer as the chosen one",
            remedy=f"swap the columns with dataset.fields: {{chosen: {self._rejected}, rejected: {self._chosen}}}; or, "
            f"where a low score is the better one, name {self._scores} in dataset.ignoredColumns",
        )

    @property
    def seems_swapped(self) -> bool:
        """Whether most scored pairs have the higher score at the rejected answer."""
        return self.scored >= _LEAST_SCORED and 2 * self.against > self.scored
