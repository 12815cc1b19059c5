"""How long the rows are, that there is something to train in them, and that they fit the model."""

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.model.row_limits import require_rows_fit
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed
from finetune_trainer.preflight.checks.dataset import DATASET
from finetune_trainer.preflight.checks.tokenizer import TOKENIZER
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.token_text import in_words


def _run(context: PreflightContext) -> CheckOutcome:
    assert context.token_pass is not None
    if isinstance(context.token_pass, TrainerError):
        raise context.token_pass
    context.tokens = statistics = context.token_pass.statistics()
    max_length = context.recipe.dataset.max_length
    if context.model is not None:
        require_rows_fit(
            context.model.facts.config,
            None,
            longest=min(statistics.longest, max_length),
            largest_id=context.token_pass.largest_id,
            max_length=max_length,
        )
    return passed(in_words(statistics))


TOKENS = Check(
    name="tokens",
    run=_run,
    needs=(Need(TOKENIZER.name, None), Need(DATASET.name, "the rows are not in order", or_skipped=True)),
    applies=lambda context: context.existing is None,
)
