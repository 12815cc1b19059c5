"""Everything that can be known before a GPU is asked for: storage, data, model, and whether there is work at all.

`python -m finetune_trainer preflight [--recipe FILE] [--output json|text]`. No torch: it runs in the small image.
"""

from finetune_trainer.preflight.checks import check
from finetune_trainer.preflight.command import main
from finetune_trainer.preflight.outcome import exit_code, shown, termination

__all__ = ["check", "exit_code", "main", "shown", "termination"]
