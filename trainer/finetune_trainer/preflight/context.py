"""What the checks of one recipe establish: each fact is written once, by one check, and read by those after it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.preflight_report import TokenStatistics
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.data.examples import Conversation, Example, Preference
from finetune_trainer.data.problems import Findings
from finetune_trainer.data.scan import DatasetScan, ScannedRow
from finetune_trainer.memory.estimate import MemoryEstimate
from finetune_trainer.preflight.model_files import ModelFacts
from finetune_trainer.preflight.token_pass import TokenPass
from finetune_trainer.storage.base import ByteCount, OpenStore

T = TypeVar("T")


class WriteOnce(Generic[T]):
    """A field that is None until a check sets it, and is set at most once."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "WriteOnce[T]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> T | None: ...
    def __get__(self, instance: object | None, owner: type) -> "WriteOnce[T] | T | None":
        return self if instance is None else instance.__dict__.get(self._name)

    def __set__(self, instance: object, value: T) -> None:
        if self._name in instance.__dict__:
            raise AttributeError(f"{self._name} is established already")
        instance.__dict__[self._name] = value


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedModel:
    """A complete base model.

    Attributes:
        folder: every file at the top of its folder.
        files: those that the trainer needs.
        facts: what they say of the model.
    """

    folder: Sequence[SourceObject]
    files: Sequence[SourceObject]
    facts: ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedScan:
    """The pass over the data after its first rows.

    Attributes:
        scan: the pass.
        rows: its iterator, which goes on after the first rows.
        first: the first rows.
    """

    scan: DatasetScan
    rows: Iterator[ScannedRow]
    first: Sequence[Example]


class PreflightContext:
    """The recipe, and what is known of it so far; None is what is not known.

    Args:
        recipe: the recipe.
        open_store: gives the store of a URI.
        on_bytes: called with the data's stored bytes as they are read.
        probe_token: makes the write probe's name unique.

    Attributes:
        data: the objects of the training data.
        validation_data: the objects of validation rows of their own; empty when there are none.
        model: the base model.
        adapter: the files of the adapter to continue from; empty when there is none.
        existing: the adapter of this run, where the output has it already.
        memory: the least memory that the training takes.
        started: the pass over the data, from when its first rows are read.
        scanned: the pass over the data, once it has reached the end.
        token_pass: what counts tokens, or what is wrong with the tokenizer.
        tokens: how long the rows are.
        findings: the problems of every pass over rows, in the order in which the passes began.
    """

    data = WriteOnce[Sequence[SourceObject]]()
    validation_data = WriteOnce[Sequence[SourceObject]]()
    model = WriteOnce[CheckedModel]()
    adapter = WriteOnce[Sequence[SourceObject]]()
    existing = WriteOnce[OutputRecord]()
    memory = WriteOnce[MemoryEstimate]()
    started = WriteOnce[StartedScan]()
    scanned = WriteOnce[DatasetScan]()
    token_pass = WriteOnce[TokenPass | TrainerError]()
    tokens = WriteOnce[TokenStatistics]()

    def __init__(self, recipe: Recipe, open_store: OpenStore, on_bytes: ByteCount, probe_token: str) -> None:
        self.recipe = recipe
        self.open_store = open_store
        self.on_bytes = on_bytes
        self.probe_token = probe_token
        self.findings: list[Findings] = []

    @property
    def fingerprint(self) -> str | None:
        """The run's fingerprint, once data, model and adapter are known."""
        if self.data is None or self.model is None or self.adapter is None:
            return None
        return fingerprint(self.recipe, [*self.data, *(self.validation_data or ())], self.model.files, self.adapter)

    @property
    def first_conversations(self) -> list[Conversation]:
        """Those of the first rows that are conversations; of a pair, both."""
        rows = self.started.first if self.started else ()
        single = (
            half for row in rows for half in ((row.chosen, row.rejected) if isinstance(row, Preference) else (row,))
        )
        return [row for row in single if isinstance(row, Conversation)]

    def new_findings(self) -> Findings:
        """A new list of problems that the report will have."""
        self.findings.append(Findings())
        return self.findings[-1]
