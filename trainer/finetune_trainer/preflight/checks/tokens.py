"""How long the rows are, and that there is something to train in them."""

from finetune_trainer.contract.failure import TrainerError
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
    return passed(in_words(statistics))


TOKENS = Check(
    name="tokens",
    run=_run,
    needs=(Need(TOKENIZER.name, None), Need(DATASET.name, "the rows are not in order", or_skipped=True)),
    applies=lambda context: context.existing is None,
)
