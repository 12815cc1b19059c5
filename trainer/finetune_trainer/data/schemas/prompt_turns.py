"""Rows in TRL's conversational prompt-completion format: a prompt and its completion, each a list of turns.

Such a row is one conversation. Only the completion is trained; the assistant's turns in the prompt are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from finetune_trainer.contract.recipe.dataset import DatasetSchema
from finetune_trainer.data.examples import Conversation, Example, Messages, RowLocation
from finetune_trainer.data.formats.columns import Columns, turns_misdeclared
from finetune_trainer.data.formats.records import Row
from finetune_trainer.data.problems import Fault, ProblemKind
from finetune_trainer.data.schemas.messages import MessagesSchema
from finetune_trainer.data.schemas.tool_calls import without_padded_arguments
from finetune_trainer.data.tool_columns import TOOLS


@dataclass(frozen=True, slots=True)
class PromptTurnsSchema:
    """The schema of rows with a column for the turns of the prompt and a column for the turns of the completion.

    Attributes:
        prompt: the column of the prompt's turns.
        completion: the column of the completion's turns.
        role: the key of a turn's role.
        content: the key of a turn's text.
        system: the column of a system message.
        schema: the name of the schema in the recipe.
    """

    prompt: str
    completion: str
    role: str
    content: str
    system: str = "system"
    schema: DatasetSchema = DatasetSchema.PROMPT_COMPLETION
    unread: dict[str, None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def columns(self) -> str:
        """See `RowSchema`."""
        return f"{self.prompt} and {self.completion}"

    @property
    def reads(self) -> frozenset[str]:
        """See `RowSchema`."""
        return frozenset({self.prompt, self.completion, self.system, *TOOLS})

    def fits(self, row: Row) -> bool:
        """See `RowSchema`."""
        return isinstance(row.get(self.prompt), list) and isinstance(row.get(self.completion), list)

    def misdeclared(self, columns: Columns) -> Sequence[Fault]:
        """See `RowSchema`."""
        named = (self.prompt, self.completion)
        return [fault for name in named for fault in turns_misdeclared(columns, name, self.role, self.content)]

    def faults(self, row: Row) -> Sequence[Fault]:
        """See `RowSchema`. The completion must have an assistant's turn; the prompt needs none."""
        asked = [fault for fault in self._prompt.faults(row) if fault.kind is not ProblemKind.NO_ANSWER]
        return [*asked, *self._completion.faults(self._answers(row))]

    def key(self, row: Row) -> int | None:
        """See `RowSchema`."""
        return None if self.faults(row) else hash(repr(self._messages(row)))

    def build(self, row: Row, place: RowLocation) -> Example:
        """See `RowSchema`."""
        return Conversation(place=place, messages=self._messages(row))

    def _messages(self, row: Row) -> Messages:
        asked = self._prompt.messages(row)
        prompt = (replace(turn, trained=False) if turn.role == "assistant" else turn for turn in asked.turns)
        answered = self._completion.messages(self._answers(row)).turns
        return Messages((*prompt, *without_padded_arguments(answered, asked.tools)), asked.tools)

    def _answers(self, row: Row) -> Row:
        """The row without tools and system message: they belong to the prompt."""
        return {key: value for key, value in row.items() if key not in (*TOOLS, self.system)}

    @property
    def _prompt(self) -> MessagesSchema:
        return MessagesSchema(self.prompt, self.role, self.content, self.schema, self.system, self.unread)

    @property
    def _completion(self) -> MessagesSchema:
        return MessagesSchema(self.completion, self.role, self.content, self.schema, self.system, self.unread)
