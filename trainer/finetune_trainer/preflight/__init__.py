"""Everything that can be known before a GPU is asked for: storage, data, model, and whether there is work at all.

`python -m finetune_trainer preflight [--recipe FILE] [--output json|text]`. No torch: it runs in the small image.
"""

from finetune_trainer.preflight.command import main
from finetune_trainer.preflight.report import exit_code, shown, termination
from finetune_trainer.preflight.run import check_recipe

__all__ = ["check_recipe", "exit_code", "main", "shown", "termination"]
