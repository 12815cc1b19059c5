"""The chat template is one for this tokenizer and takes the first rows.

Compiling and rendering happen in a process of their own (`data/templates/trial.py`).
"""

from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import DatasetSpec
from finetune_trainer.contract.uri import Uri
from finetune_trainer.data.examples import Conversation
from finetune_trainer.data.problems import Findings
from finetune_trainer.data.templates.builtin import template_label, template_source
from finetune_trainer.data.templates.choose import check_syntax, template_refused, template_unused
from finetune_trainer.data.templates.trial import Trial, try_template
from finetune_trainer.preflight.check import Check, CheckOutcome, passed
from finetune_trainer.preflight.checks.first_rows import FIRST_ROWS
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.tokenizer_files import tokenizer_facts
from finetune_trainer.storage.base import OpenStore


def _applies(context: PreflightContext) -> bool:
    """Whether there is a template, or something to render; not when the data is there and its rows cannot be read."""
    if context.data is not None and context.started is None:
        return False
    return context.recipe.dataset.chat_template is not None or bool(context.first_conversations)


def _asks(context: PreflightContext) -> list[Uri]:
    return [context.recipe.model.uri] if context.first_conversations else []


def _run(context: PreflightContext) -> CheckOutcome:
    dataset = context.recipe.dataset
    chosen, conversations = dataset.chat_template, context.first_conversations
    check_syntax(chosen)
    if conversations and context.model is not None:
        folder, findings = context.model.folder, context.new_findings()
        return passed(render_first_rows(dataset, folder, conversations, findings, context.open_store))
    if chosen is not None and context.started is not None and context.started.scan.schema is not None:
        raise template_unused(chosen)
    return passed("it parses; what else is to be known needs the data and the model")


def render_first_rows(
    dataset: DatasetSpec,
    model: Sequence[SourceObject],
    rows: Sequence[Conversation],
    findings: Findings,
    open_store: OpenStore,
) -> str:
    """Renders the first conversations.

    Args:
        dataset: names the template and the loss.
        model: the model's files.
        rows: the first conversations.
        findings: takes what is wrong with rows.
        open_store: where the tokenizer's files are opened.

    Returns:
        Which template it is, for the report.

    Raises:
        TrainerError: INVALID_SPEC or MODEL_INVALID, the template cannot be used; DATASET_INVALID, it refuses rows;
            or the storage's reason.
    """
    facts, chosen = tokenizer_facts(model, open_store), dataset.chat_template
    label = "the model's own" if chosen is None else template_label(chosen)
    source = facts.template if chosen is None else template_source(chosen)
    if source is None:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            "the dataset has messages, but the model has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); set dataset.chatTemplate, use the instruct model of the family, or rows of prompt "
            "and completion",
        )
    if facts.known is None or "eos_token" not in facts.special_tokens:
        # A class of transformers may know more than the files say.
        return f"{label}; not tried: the tokenizer's files do not name its special tokens"
    result = try_template(
        Trial(
            source=source,
            special_tokens=facts.special_tokens,
            special=sorted(facts.special),
            # The model's own template may write whatever its makers meant it to.
            known=sorted(facts.known) if chosen is not None else None,
            loss=dataset.loss,
            rows=[row.messages for row in rows],
        )
    )
    if result.problem is not None:
        if chosen is not None:
            raise template_refused(chosen, result.problem)
        raise TrainerError(FailureReason.MODEL_INVALID, f"the model's chat template {result.problem}")
    for number, fault in sorted(result.faults.items()):
        place = rows[number].place
        findings.add(fault, place.file, place.line, unit=place.unit)
    findings.raise_if_any()
    return f"{label}; {result.rows:,} row{'s' if result.rows > 1 else ''} rendered"


TEMPLATE = Check(name="template", run=_run, after=(FIRST_ROWS.name, MODEL.name), applies=_applies, asks=_asks)
