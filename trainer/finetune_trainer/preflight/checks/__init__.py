"""The checks, a module each, in the order in which they run.

`storage.write` comes last: nothing is written for data that is not in order.
"""

from finetune_trainer.preflight.checks.dataset import DATASET
from finetune_trainer.preflight.checks.existing_output import EXISTING_OUTPUT
from finetune_trainer.preflight.checks.first_rows import FIRST_ROWS
from finetune_trainer.preflight.checks.initial_adapter import INITIAL_ADAPTER
from finetune_trainer.preflight.checks.memory import MEMORY
from finetune_trainer.preflight.checks.model import MODEL
from finetune_trainer.preflight.checks.recipe import RECIPE
from finetune_trainer.preflight.checks.serving import SERVING
from finetune_trainer.preflight.checks.storage_read import STORAGE_READ
from finetune_trainer.preflight.checks.storage_write import STORAGE_WRITE
from finetune_trainer.preflight.checks.template import TEMPLATE
from finetune_trainer.preflight.checks.tokenizer import TOKENIZER
from finetune_trainer.preflight.checks.tokens import TOKENS

CHECKS = (
    RECIPE,
    STORAGE_READ,
    MODEL,
    INITIAL_ADAPTER,
    EXISTING_OUTPUT,
    MEMORY,
    FIRST_ROWS,
    TEMPLATE,
    TOKENIZER,
    DATASET,
    TOKENS,
    STORAGE_WRITE,
    SERVING,
)

__all__ = ["CHECKS"]
