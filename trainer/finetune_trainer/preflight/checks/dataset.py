"""Every row of the data is valid; a sample of them is tokenised."""

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import DatasetSchema, Loss
from finetune_trainer.data.examples import RowLocation
from finetune_trainer.data.problems import keys_shown
from finetune_trainer.data.read_examples import for_validation
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.data.templates.choose import template_unused
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.checks.first_rows import FIRST_ROWS
from finetune_trainer.preflight.checks.template import TEMPLATE
from finetune_trainer.preflight.checks.tokenizer import TOKENIZER
from finetune_trainer.preflight.context import PreflightContext, StartedScan
from finetune_trainer.preflight.token_pass import TokenPass


def _run(context: PreflightContext) -> CheckOutcome:
    assert context.started is not None
    dataset, scan = context.recipe.dataset, context.started.scan
    _read_to_the_end(context.started, context.token_pass)
    context.scanned = scan
    scan.findings.raise_if_any()
    if scan.schema is DatasetSchema.TEXT and dataset.loss in (Loss.ASSISTANT, Loss.COMPLETION):
        raise TrainerError(
            FailureReason.INVALID_SPEC,
            f"spec.dataset.loss: {dataset.loss}: the rows are running text without such a part; use auto or all",
        )
    held_out = ""
    if context.validation_data:
        held_out = f", {_validation_rows(context):,} rows for validation"
    elif dataset.validation is not None:
        held_out = _held_out(scan, float(dataset.validation.fraction or 0))
    blank = f", {scan.blank_lines:,} blank lines passed over" if scan.blank_lines else ""
    repeated = scan.duplicates
    least = "" if repeated.complete else "at least "
    twice = f", {least}{repeated.count:,} of them duplicates" if repeated.count else ""
    agreement = scan.agreement
    against = ""
    if agreement is not None and agreement.contradictions:
        against = f", {agreement.contradictions:,} of them in the other order in an earlier row"
    if agreement is not None and agreement.against:
        against += f", {agreement.against:,} of {agreement.scored:,} with the higher score at the rejected answer"
    unread = f"; not read: {keys_shown(dict.fromkeys(scan.unread))}" if scan.unread else ""
    return passed(f"{scan.rows:,} rows of {scan.schema}{twice}{against}, {scan.bytes:,} bytes{blank}{held_out}{unread}")


def _read_to_the_end(started: StartedScan, token_pass: TokenPass | TrainerError | None) -> None:
    """Reads the rows after the first ones; all are counted where there is a tokenizer."""
    if not isinstance(token_pass, TokenPass):
        for _ in started.rows:
            pass
        return
    for example in started.first:
        token_pass.take(example, token_pass.next_weight())
    for shape, file, line, row in started.rows:
        if weight := token_pass.next_weight():
            token_pass.take(shape.build(row, RowLocation(file=file, line=line, unit=started.scan.unit)), weight)


def _validation_rows(context: PreflightContext) -> int:
    """Looks at validation rows of their own as at the others, tokenised where those are; returns their number.

    Raises:
        TrainerError: rows are wrong, or have no token to measure.
    """
    dataset, trained = for_validation(context.recipe.rows), context.token_pass
    scan = DatasetScan(dataset, context.validation_data or (), context.open_store, context.on_bytes)
    context.findings.append(scan.findings)
    token_pass = trained.another(context.new_findings()) if isinstance(trained, TokenPass) else None
    for shape, file, line, row in scan:
        if token_pass is not None and (weight := token_pass.next_weight()):
            token_pass.take(shape.build(row, RowLocation(file=file, line=line, unit=scan.unit)), weight)
    scan.findings.raise_if_any()
    # Pairs may be either; the check of the template has looked at the first of them.
    conversations = scan.schema not in (DatasetSchema.TEXT, DatasetSchema.PROMPT_COMPLETION)
    if dataset.chat_template is not None and not conversations:
        raise template_unused(dataset.chat_template)
    if token_pass is not None:
        token_pass.statistics()
    return scan.rows


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


DATASET = Check(
    name="dataset",
    run=_run,
    after=(FIRST_ROWS.name, TEMPLATE.name, TOKENIZER.name),
    applies=lambda context: context.started is not None,
)
