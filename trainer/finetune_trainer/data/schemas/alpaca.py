"""The schema of Alpaca rows: an instruction, an optional input and an output, with LLaMA-Factory's additional columns.

The rows become conversations, so training and serving use the same chat template.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from finetune_trainer.contract.recipe.dataset import DatasetSchema
from finetune_trainer.data.examples import Conversation, Example, Message, Messages, RowLocation
from finetune_trainer.data.formats.columns import Columns, texts_misdeclared
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.schemas.text_check import as_text, column_faults, text_fault, text_key
from finetune_trainer.data.schemas.tool_calls import tools_of
from finetune_trainer.data.schemas.turn import system_turn
from finetune_trainer.data.tool_columns import TOOLS

HISTORY: Final = "history"
"""The column of earlier turns: a list of pairs of texts, a question and its answer."""


@dataclass(frozen=True, slots=True)
class AlpacaSchema:
    """Rows with an instruction and an output. Input, system message, tools and earlier turns are optional.

    Attributes:
        instruction: the column of the instruction.
        input: the column of the input.
        output: the column of the output.
        system: the column of a system message.
        schema: the name of the schema in the recipe.
    """

    instruction: str
    input: str
    output: str
    system: str = "system"
    schema: DatasetSchema = DatasetSchema.ALPACA

    @property
    def columns(self) -> str:
        """See `RowSchema`."""
        return f"{self.instruction} and {self.output}"

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.instruction, self.input, self.output, self.system, HISTORY, *TOOLS})

    @property
    def unread(self) -> Collection[str]:
        """See `RowSchema`."""
        return ()

    def fits(self, row: Row) -> bool:
        """See `RowSchema`."""
        return row.get(self.instruction) is not None and row.get(self.output) is not None

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        return texts_misdeclared(columns, [self.instruction, self.output], optional=[self.input, self.system])

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`."""
        faults = column_faults(row, (self.instruction, self.output))
        for column in (self.input, self.system):
            given = row.get(column)
            if given is not None and (fault := text_fault(given, column, may_be_empty=True)):
                faults.append(fault)
        return [*faults, *_history_faults(row.get(HISTORY)), *tools_of(row)[1]]

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        instruction, output = text_key(row.get(self.instruction)), text_key(row.get(self.output))
        given = row.get(self.input)
        context = "" if given is None or given == "" else text_key(given)
        beside = row.get(self.system) is not None or row.get(HISTORY) or any(map(row.get, TOOLS))
        if instruction is None or output is None or context is None or beside:
            # Here a text may be missing or blank, which is a fault only for instruction and output.
            if self.faults(row):
                return None
            more = (row.get(HISTORY) or [], tools_of(row)[0])
            return hash((instruction, given, output, row.get(self.system), json.dumps(more, sort_keys=True)))
        return hash((instruction, context, output))

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`. Instruction and input become one user turn, with a blank line between them."""
        asked, context = as_text(row[self.instruction]), as_text(row.get(self.input) or "")
        if context.strip():
            asked = f"{asked}\n\n{context}"
        history = row.get(HISTORY) or []
        assert isinstance(history, list)
        texts = (as_text(text) for text in chain(*history, (asked, row[self.output])))
        turns = [Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts)]
        messages = Messages((*system_turn(row, self.system), *turns), tuple(tools_of(row)[0]))
        return Conversation(place=place, messages=messages)


def _history_faults(history: object) -> list[Fault]:
    if history is None or history == "":
        return []
    if not isinstance(history, list):
        return [_no_pair(history, HISTORY, "a list of pairs")]
    faults = []
    for number, pair in enumerate(history):
        path = f"{HISTORY}[{number}]"
        if not isinstance(pair, list) or len(pair) != 2:
            faults.append(_no_pair(pair, path, "a pair"))
            continue
        faults += [fault for place in (0, 1) if (fault := text_fault(pair[place], f"{path}[{place}]"))]
    return faults


def _no_pair(value: object, path: str, what: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value),
        expected=f"{what}, what was asked before and what was answered",
        remedy='write [["question", "answer"], …], or rename the column',
    )
