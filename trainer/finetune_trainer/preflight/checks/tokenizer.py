"""The tokenizer that counts tokens is made. What is wrong with it is said by `tokens`, once the rows are in order."""

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed, skipped
from finetune_trainer.preflight.checks.first_rows import FIRST_ROWS
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.checks.template import TEMPLATE
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.token_pass import TokenPass
from finetune_trainer.preflight.tokenizer import file_tokenizer
from finetune_trainer.preflight.tokenizer_files import tokenizer_facts


def _run(context: PreflightContext) -> CheckOutcome:
    assert context.model is not None
    dataset, folder = context.recipe.dataset, context.model.folder
    try:
        facts = tokenizer_facts(folder, context.open_store)
        template = facts.template if dataset.chat_template is None else template_source(dataset.chat_template)
        tokenizer = file_tokenizer(folder, facts, template, context.open_store)
    except TrainerError as error:
        context.token_pass = error
        return passed()
    if tokenizer is None or tokenizer.eos_token_id is None:
        # A class of transformers may make what the files lack.
        return skipped("the model has no tokenizer.json, or names no end-of-text token: the trainer counts by itself")
    context.token_pass = TokenPass(context.recipe, tokenizer, context.new_findings())
    return passed()


TOKENIZER = Check(
    name="tokenizer",
    run=_run,
    needs=(
        Need(FIRST_ROWS.name, "no row was read"),
        Need(MODEL.name, "the model is not known"),
        Need(TEMPLATE.name, "the chat template is not in order", or_skipped=True),
    ),
    reported_as=None,
)
