"""Rules on several fields that concern the method: what `dpo` needs, and what only it has."""

from finetune_trainer.contract.recipe import DpoSpec, Recipe
from finetune_trainer.contract.recipe.dataset import DatasetSchema, Loss
from finetune_trainer.contract.recipe.preference import DpoLossType, Method
from finetune_trainer.contract.rule import DECIMAL, Rule, literal

_DEFAULTS = DpoSpec()


def _answer(part: str) -> Rule[Recipe]:
    """The rule that only preference data have two answers."""
    return Rule(
        path=f"dataset.fields.{part}",
        holds=lambda recipe: (
            recipe.method is Method.DPO or recipe.dataset.fields is None or part not in recipe.dataset.fields.named
        ),
        cel=f"self.method == 'dpo' || !has(self.dataset.fields) || !has(self.dataset.fields.{part})",
        message="only method: dpo reads two answers: set the method, or name the answer to train in fields.completion",
    )


RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="dpo",
        holds=lambda recipe: recipe.method is Method.DPO or recipe.dpo == _DEFAULTS,
        cel="self.method == 'dpo' || (self.dpo.beta == '0.1' && self.dpo.lossType == 'sigmoid' && "
        "self.dpo.labelSmoothing == '0' && self.dpo.sftWeight == '0' && !self.dpo.referenceFree)",
        message="only method: dpo reads this section: set the method, or remove the section",
    ),
    Rule(
        path="dpo.labelSmoothing",
        holds=lambda recipe: recipe.dpo.loss_type is DpoLossType.SIGMOID or float(recipe.dpo.label_smoothing) == 0,
        cel=f"self.dpo.lossType == 'sigmoid' || !self.dpo.labelSmoothing.matches({literal(DECIMAL)}) || "
        "double(self.dpo.labelSmoothing) == 0.0",
        message='only lossType sigmoid smooths labels: use it, or set "0"',
    ),
    Rule(
        path="dataset.schema",
        holds=lambda recipe: (
            recipe.dataset.schema_ in (DatasetSchema.AUTO, DatasetSchema.PREFERENCE)
            if recipe.method is Method.DPO
            else recipe.dataset.schema_ is not DatasetSchema.PREFERENCE
        ),
        cel="self.method == 'dpo' ? self.dataset.schema in ['auto', 'preference'] : "
        "self.dataset.schema != 'preference'",
        message="rows of schema preference are for method: dpo, and no others are: change one of the two",
    ),
    *map(_answer, ("chosen", "rejected")),
    Rule(
        path="dataset.loss",
        holds=lambda recipe: recipe.method is not Method.DPO or recipe.dataset.loss is Loss.AUTO,
        cel="self.method != 'dpo' || self.dataset.loss == 'auto'",
        message="with method: dpo the answers are compared, not their prompts: remove the field",
    ),
)
