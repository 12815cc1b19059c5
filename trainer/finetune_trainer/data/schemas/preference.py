"""The schema of preference data: rows with a better answer and a worse one.

A pair is two rows of supervised data that have the prompt in common. So each answer is read by the schema of such rows,
with the same checks of turns, tools and reasoning; this module joins the two. `preference_forms` has the forms of rows.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from finetune_trainer.contract.recipe.dataset import DatasetSchema
from finetune_trainer.data.examples import Example, Preference, RowLocation, SupervisedExample
from finetune_trainer.data.formats.columns import Columns
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, absent_key
from finetune_trainer.data.schemas.pair_agreement import PairAgreement
from finetune_trainer.data.schemas.row_schemas import RowSchema

Pair = tuple[SupervisedExample, SupervisedExample]
"""The better answer and the worse one, each with its prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceForm:
    """One form of preference rows.

    Attributes:
        columns: the names of its columns, for messages.
        chosen: reads a row as if it had the better answer alone.
        rejected: reads a row as if it had the worse answer alone.
        fits: whether a row has this form, its answers perhaps left out.
        prepared: the row as `chosen` and `rejected` read it.
        joined: the pair of the two examples; where a form states no prompt, it is found here.
        faults: what is wrong with a row whose answers are right, each by itself.
        whole: whether both answers are whole dialogues, which say the prompt too.
    """

    columns: str
    chosen: RowSchema
    rejected: RowSchema
    fits: Callable[[Row], bool]
    prepared: Callable[[Row], Row] = lambda row: row
    joined: Callable[[Pair], Pair] = lambda pair: pair
    faults: Callable[[Row], Sequence[Fault]] = lambda row: ()  # noqa: ARG005
    whole: bool = False


class PreferenceSchema:
    """Rows of one form of pairs.

    Args:
        form: the form.
        chosen: the column of the better answer.
        rejected: the column of the worse answer.
        ignored: columns that the user has decided not to use.

    Attributes:
        agreement: what the rows so far say of the order of their answers.
    """

    schema = DatasetSchema.PREFERENCE

    def __init__(self, form: PreferenceForm, chosen: str, rejected: str, ignored: frozenset[str] = frozenset()) -> None:
        self._form, self._chosen, self._rejected = form, chosen, rejected
        self.agreement = PairAgreement(chosen, rejected, ignored)

    @property
    def columns(self) -> str:
        """See `RowSchema`."""
        return self._form.columns

    @property
    def is_whole(self) -> bool:
        """Whether both answers are whole dialogues, which say the prompt too."""
        return self._form.whole

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return self._form.chosen.reads | self._form.rejected.reads | {self._chosen, self._rejected}

    @property
    def unread(self) -> Collection[str]:
        """See `RowSchema`."""
        return dict.fromkeys((*self._form.chosen.unread, *self._form.rejected.unread))

    def fits(self, row: Row) -> bool:
        """See `RowSchema`. A row that lacks one of the answers fits, so that the message names the other."""
        return any(row.get(column) is not None for column in (self._chosen, self._rejected)) and self._form.fits(row)

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`. An answer has several forms, so they are looked at row by row."""
        del columns
        return ()

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`. A fault of the prompt, which both answers have in common, is said once."""
        absent = [absent_key(row, column) for column in (self._chosen, self._rejected) if row.get(column) is None]
        if absent:
            return absent
        prepared, form = self._form.prepared(row), self._form
        faults = list(dict.fromkeys([*form.chosen.faults(prepared), *form.rejected.faults(prepared)]))
        if faults:
            return faults
        if form.chosen.key(prepared) == form.rejected.key(prepared):
            return [self._equal_answers()]
        return form.faults(prepared)

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        if row.get(self._chosen) is None or row.get(self._rejected) is None:
            return None
        prepared, form = self._form.prepared(row), self._form
        chosen, rejected = form.chosen.key(prepared), form.rejected.key(prepared)
        if chosen is None or rejected is None or chosen == rejected or form.faults(prepared):
            return None
        self.agreement.add(row, chosen, rejected)
        return hash((chosen, rejected))

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        prepared = self._form.prepared(row)
        both = [schema.build(prepared, place) for schema in (self._form.chosen, self._form.rejected)]
        chosen, rejected = (example for example in both if not isinstance(example, Preference))
        chosen, rejected = self._form.joined((chosen, rejected))
        return Preference(place=place, chosen=chosen, rejected=rejected)

    def _equal_answers(self) -> Fault:
        return Fault(
            kind=ProblemKind.PAIR,
            path=self._rejected,
            found=f"the same answer as {self._chosen}",
            expected="two different answers",
            remedy="remove the row: equal answers say nothing",
        )


def with_answer_as_turns(row: Mapping[str, object], column: str, role: str, content: str) -> Row:
    """The row with an answer that is one turn, or a text of the assistant, as a list of turns.

    Args:
        row: the row.
        column: the answer's column.
        role: the key of a turn's role.
        content: the key of a turn's text.
    """
    answer = row.get(column)
    if isinstance(answer, dict):
        return {**row, column: [answer]}
    if isinstance(answer, str):
        return {**row, column: [{role: "assistant", content: answer}]}
    return dict(row)
