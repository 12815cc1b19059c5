"""The checks, in their order.

Each runs even when one before it failed, unless it needs what that one looks for: a user should learn of a wrong key
and of a broken line in one go.
"""

import uuid
from collections.abc import Callable, Sequence

from finetune_trainer.contract.consistency import inconsistencies
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.preflight_report import Check, PreflightReport, TokenStatistics, Verdict
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import DatasetSchema, Loss
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.termination import OutputRecord, PreflightSummary
from finetune_trainer.contract.uri import Scheme, parse_uri
from finetune_trainer.data.examples import Conversation, RowLocation
from finetune_trainer.data.problems import KEPT, Findings, keys_shown
from finetune_trainer.data.read_examples import for_validation
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.data.templates.choose import check_syntax, template_unused
from finetune_trainer.inputs.initial_adapter import initial_adapter_objects, require_agreement
from finetune_trainer.memory.estimate import MemoryEstimate
from finetune_trainer.memory.gpu_memory import minimum_memory, require_gpu_memory
from finetune_trainer.output.reuse import reusable_output
from finetune_trainer.preflight.model_files import ModelFacts, check_model
from finetune_trainer.preflight.templates import check_template, first_rows, tokenizer_facts
from finetune_trainer.preflight.token_pass import TokenPass
from finetune_trainer.preflight.token_words import in_words, summary_of
from finetune_trainer.preflight.tokenizer import file_tokenizer
from finetune_trainer.preflight.writing import check_writing
from finetune_trainer.sources import (
    dataset_objects,
    model_files,
    model_folder,
    validation_objects,
)
from finetune_trainer.storage.base import ByteCount, OpenStore


def check(
    recipe: Recipe,
    open_store: OpenStore,
    *,
    moved: ByteCount = lambda _: None,
    token: str | None = None,
) -> PreflightReport:
    """Checks a recipe.

    Args:
        recipe: the recipe.
        open_store: gives the store of a place.
        moved: called with the data's stored bytes as they are read.
        token: makes the write probe's name unique; random by default.
    """
    run = _Checks(recipe, open_store, moved)
    run.recipe_fields()
    run.data_places()
    run.model()
    run.initial_adapter()
    run.existing()
    run.memory()
    run.rows()
    run.tokens()
    run.writing(token or uuid.uuid4().hex)
    return run.report()


class _Checks:
    """The checks of one recipe, and what the later ones need of the earlier ones."""

    def __init__(self, recipe: Recipe, open_store: OpenStore, moved: ByteCount) -> None:
        self._recipe = recipe
        self._open_store = open_store
        self._moved = moved
        self._checks: list[Check] = []
        self._down: set[Scheme] = set()
        self._data: list[SourceObject] | None = None
        self._validation: list[SourceObject] = []
        self._model: list[SourceObject] | None = None
        self._adapter: list[SourceObject] | None = None
        self._model_folder: list[SourceObject] | None = None
        self._found: list[Findings] = []
        self._counting: TokenPass | TrainerError | str = "no row was read"
        self._tokens: TokenStatistics | None = None
        self._facts: dict[str, object] = {}
        self._fingerprint: str | None = None
        self._existing: OutputRecord | None = None
        self._model_facts: ModelFacts | None = None
        self._memory: MemoryEstimate | None = None

    def recipe_fields(self) -> None:
        """Fields that contradict each other."""

        def look() -> str:
            if broken := inconsistencies(self._recipe):
                raise TrainerError(FailureReason.INVALID_RECIPE, "; ".join(map(str, broken)))
            return "every field is understood"

        self._run("recipe", (), look)

    def data_places(self) -> None:
        """The data's objects are there and may be read."""
        dataset = self._recipe.dataset
        own = dataset.validation.uri if dataset.validation else None
        places = [*([dataset.uri] if dataset.uri else dataset.uris or []), *([own] if own else [])]

        def look() -> str:
            data = dataset_objects(dataset, self._open_store)
            self._validation = validation_objects(dataset, self._open_store)
            self._data = data
            size = sum(item.size for item in data)
            return f"{len(data):,} object{'s' if len(data) > 1 else ''}, {size:,} bytes"

        self._run("storage.read", [parse_uri(place).scheme for place in places], look)

    def model(self) -> None:
        """The base model is whole."""
        place = self._recipe.model.uri

        def look() -> str:
            folder = model_folder(self._recipe, self._open_store)
            facts = check_model(place, folder, self._open_store)
            self._model, self._model_folder, self._model_facts = model_files(self._recipe, folder), folder, facts
            revision = folder[0].revision
            self._facts |= {
                "model_bytes": facts.size,
                "model_parameters": facts.parameters,
                "model_revision": revision,
            }
            parameters = f", {facts.parameters:,} parameters" if facts.parameters is not None else ""
            commit = f", commit {revision}" if revision is not None else ""
            return f"{facts.size:,} bytes{parameters}{commit}"

        self._run("model", [parse_uri(place).scheme], look)

    def initial_adapter(self) -> None:
        """The adapter to continue from is there, whole, and of the kind that the recipe asks for."""
        place = self._recipe.lora.initial_adapter_uri
        if place is None:
            self._adapter = []
            return

        def look() -> str:
            found = initial_adapter_objects(self._recipe, self._open_store)
            require_agreement(self._recipe, found, self._open_store)
            self._adapter = found
            return f"continues from {place}, {sum(item.size for item in found):,} bytes"

        self._run("adapter", [parse_uri(place).scheme], look)

    def existing(self) -> None:
        """Whether the adapter of this very run is there already."""
        output = self._recipe.output
        if self._data is None or self._model is None or self._adapter is None:
            self._skip("output", "data or model are not known, hence neither is the run's fingerprint")
            return
        self._fingerprint = fingerprint(self._recipe, [*self._data, *self._validation], self._model, self._adapter)
        name = self._fingerprint

        def look() -> str:
            found = reusable_output(self._recipe, name, self._open_store)
            if found is None:
                replaced = output.on_existing is OnExisting.REPLACE
                return "whatever is there will be replaced" if replaced else "no adapter of this run is there yet"
            self._existing = found
            return f"the adapter of this very run is at {found.uri} and will be taken"

        self._run("output", [parse_uri(output.uri).scheme], look)

    def memory(self) -> None:
        """The smallest way of training fits the GPU, where its memory is known."""
        facts, name = self._model_facts, "memory"
        if facts is None:
            self._skip(name, "the model is not known")
        elif self._existing is not None:
            self._skip(name, "nothing is trained: the adapter is there")
        elif (least := minimum_memory(self._recipe, facts.config, facts.tensors, facts.weights_size)) is None:
            self._skip(name, "the model's config.json does not have the sizes by which it is estimated")
        else:
            self._memory = least
            self._facts["memory_estimate_bytes"] = least.total
            self._run(name, (), lambda: require_gpu_memory(self._recipe, least))

    def rows(self) -> None:
        """Every row of the data is sound, and the chat template takes the first ones."""
        if self._data is not None and self._existing is None:
            data = self._data
            self._run("dataset", [parse_uri(item.uri).scheme for item in data], lambda: self._scan(data))
            return
        if self._existing is not None:
            self._skip("dataset", "nothing is trained: an adapter of the same data is there")
        else:
            self._skip("dataset", "its objects cannot be read")
            self._template([])

    def tokens(self) -> None:
        """How long the rows are, and that there is something to train in them."""
        counted = self._counting
        if self._existing is not None:
            return
        if isinstance(counted, str):
            self._skip("tokens", counted)
        elif self._failed("dataset"):
            self._skip("tokens", "the rows are not in order")
        else:

            def look() -> str:
                if isinstance(counted, TrainerError):
                    raise counted
                self._tokens = counted.statistics()
                self._facts |= summary_of(self._tokens)
                return in_words(self._tokens)

            self._run("tokens", (), look)

    def _template(self, talks: Sequence[Conversation]) -> None:
        """The chat template is one for this tokenizer and takes the first rows."""
        dataset = self._recipe.dataset
        chosen, model = dataset.chat_template, self._model_folder
        if chosen is None and not talks:
            return  # nothing is rendered

        def look() -> str:
            check_syntax(chosen)
            if talks and model is not None:
                return check_template(dataset, model, talks, self._findings(), self._open_store)
            if chosen is not None and self._facts.get("schema") is not None:
                raise template_unused(chosen)
            return "it parses; what else is to be known needs the data and the model"

        self._run("template", [parse_uri(self._recipe.model.uri).scheme] if talks else [], look)

    def _make_counting(self) -> TokenPass | TrainerError | str:
        """What counts tokens; or what is wrong with the tokenizer; or why there is none."""
        dataset, model = self._recipe.dataset, self._model_folder
        if model is None:
            return "the model is not known"
        if self._failed("template"):
            return "the chat template is not in order"
        try:
            facts = tokenizer_facts(model, self._open_store)
            template = facts.template if dataset.chat_template is None else template_source(dataset.chat_template)
            tokenizer = file_tokenizer(model, facts, template, self._open_store)
        except TrainerError as error:
            return error
        if tokenizer is None or tokenizer.eos_token_id is None:
            # A class of transformers may make what the files lack.
            return "the model has no tokenizer.json, or names no end-of-text token: the trainer counts by itself"
        return TokenPass(self._recipe, tokenizer, self._findings())

    def _findings(self) -> Findings:
        """A new list of problems that the report will have."""
        self._found.append(Findings())
        return self._found[-1]

    def writing(self, token: str) -> None:
        """The output can be written, and a place of its own for checkpoints.

        Comes last, and not at all when the data is bad: then nothing is written.
        """
        asked = [self._recipe.output.uri, self._recipe.checkpoint.uri]
        places = [parse_uri(uri) for uri in dict.fromkeys(uri for uri in asked if uri is not None)]
        if self._existing is not None:
            self._skip("storage.write", "nothing is written: the adapter is there")
        elif any(self._failed(name) for name in ("dataset", "template", "tokens", "storage.read")):
            self._skip("storage.write", "nothing is written while the data is not in order")
        else:

            def look() -> str:
                return "; ".join(check_writing(self._open_store(place), place, token) for place in places)

            self._run("storage.write", [place.scheme for place in places], look)

    def report(self) -> PreflightReport:
        """All of it."""
        count = sum(found.count for found in self._found)
        problems = [problem for found in self._found for problem in found.problems]
        return PreflightReport(
            passed=all(item.verdict is not Verdict.FAILED for item in self._checks),
            checks=self._checks,
            problems=problems[:KEPT],
            problem_count=count,
            tokens=self._tokens,
            summary=PreflightSummary.model_validate({"problems": count, **self._facts}),
            fingerprint=self._fingerprint,
            memory=self._memory.parts() if self._memory is not None else {},
            existing=self._existing,
        )

    def _scan(self, data: Sequence[SourceObject]) -> str:
        dataset = self._recipe.dataset
        scan = DatasetScan(dataset, data, self._open_store, self._moved)
        self._found.append(scan.findings)
        rows = iter(scan)
        first = first_rows(scan, rows)
        self._facts["schema"] = scan.schema
        self._template([row for row in first if isinstance(row, Conversation)])
        self._counting = counted = self._make_counting()
        if isinstance(counted, TokenPass):
            for row in first:
                counted.take(row, counted.next_weight())
            for shape, file, line, found in rows:
                if weight := counted.next_weight():
                    counted.take(shape.build(found, RowLocation(file=file, line=line, unit=scan.unit)), weight)
        else:
            for _ in rows:
                pass
        repeated = scan.duplicates
        self._facts |= {
            "rows": scan.rows,
            "bytes": scan.bytes,
            "schema": scan.schema,
            "duplicates": repeated.count,
        }
        scan.findings.raise_if_any()
        if scan.schema is DatasetSchema.TEXT and dataset.loss in (Loss.ASSISTANT, Loss.COMPLETION):
            message = (
                f"spec.dataset.loss: {dataset.loss}: the rows are running text without such a part; use auto or all"
            )
            raise TrainerError(FailureReason.INVALID_RECIPE, message)
        kept = ""
        if self._validation:
            kept = f", {self._scan_validation(counted):,} rows for validation"
        elif dataset.validation is not None:
            kept = _held_out(scan, float(dataset.validation.fraction or 0))
        blank = f", {scan.blank_lines:,} blank lines passed over" if scan.blank_lines else ""
        least = "" if repeated.complete else "at least "
        twice = f", {least}{repeated.count:,} of them duplicates" if repeated.count else ""
        unread = f"; not read: {keys_shown(dict.fromkeys(scan.ignored))}" if scan.ignored else ""
        return f"{scan.rows:,} rows of {scan.schema}{twice}, {scan.bytes:,} bytes{blank}{kept}{unread}"

    def _scan_validation(self, trained: TokenPass | TrainerError | str) -> int:
        """Looks at validation rows of their own as at the others, tokenised where those are; returns their number.

        Raises:
            TrainerError: rows are wrong, or have no token to measure.
        """
        dataset = for_validation(self._recipe.dataset)
        scan = DatasetScan(dataset, self._validation, self._open_store, self._moved)
        self._found.append(scan.findings)
        counted = trained.another(self._findings()) if isinstance(trained, TokenPass) else None
        for shape, file, line, found in scan:
            if counted is not None and (weight := counted.next_weight()):
                counted.take(shape.build(found, RowLocation(file=file, line=line, unit=scan.unit)), weight)
        scan.findings.raise_if_any()
        talks = scan.schema not in (DatasetSchema.TEXT, DatasetSchema.PROMPT_COMPLETION)
        if dataset.chat_template is not None and not talks:
            raise template_unused(dataset.chat_template)
        if counted is not None:
            counted.statistics()
        return scan.rows

    def _run(self, name: str, schemes: Sequence[Scheme], look: Callable[[], str]) -> None:
        """Runs a check and notes its verdict; storage that did not answer is not waited for again."""
        if self._down & set(schemes):
            self._skip(name, "the storage does not answer")
            return
        try:
            message = look()
        except TrainerError as error:
            if error.reason is FailureReason.STORAGE_UNAVAILABLE:
                self._down |= set(schemes)
            self._note(Check(name=name, verdict=Verdict.FAILED, reason=error.reason, message=error.message))
        else:
            self._note(Check(name=name, verdict=Verdict.PASSED, message=message))

    def _skip(self, name: str, why: str) -> None:
        self._note(Check(name=name, verdict=Verdict.SKIPPED, message=why))

    def _note(self, item: Check) -> None:
        self._checks.append(item)

    def _failed(self, name: str) -> bool:
        return any(item.name == name and item.verdict is Verdict.FAILED for item in self._checks)


def _held_out(scan: DatasetScan, fraction: float) -> str:
    """How many rows are kept out for validation.

    Raises:
        TrainerError: there are no two different rows.
    """
    if scan.rows - scan.duplicates.count < 2:
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"spec.dataset.validation.fraction: {scan.rows:,} rows that are all the same cannot be divided; use rows "
            "of their own (validation.uri), or remove the section",
        )
    return f", about {max(1, int(fraction * scan.rows)):,} of them kept out for validation"
