"""Everything that can be checked before a GPU is requested: storage, data, model, and whether an adapter exists.

`python -m finetune_trainer preflight [--recipe FILE] [--output json|text]`. No torch: it runs in the small image.
"""

from finetune_trainer.preflight.command import main
from finetune_trainer.preflight.report import exit_code, shown, termination
from finetune_trainer.preflight.run import check_recipe

__all__ = ["check_recipe", "exit_code", "main", "shown", "termination"]
