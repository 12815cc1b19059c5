"""Rules on several fields that concern the `training` section."""

from finetune_trainer.contract.recipe import Method, Recipe
from finetune_trainer.contract.recipe.training import EvaluationMetric, Scheduler
from finetune_trainer.contract.rule import DECIMAL, Rule, literal

RULES: tuple[Rule[Recipe], ...] = (
    Rule(
        path="training",
        holds=lambda recipe: recipe.training.epochs is None or recipe.training.max_steps is None,
        cel="!(has(self.training.epochs) && has(self.training.maxSteps))",
        message="set epochs or maxSteps, not both: remove one of them",
    ),
    Rule(
        path="training.microBatchSize",
        holds=lambda recipe: recipe.training.batch_size % (recipe.training.micro_batch_size or 1) == 0,
        given=("training.batchSize",),
        cel="!has(self.training.microBatchSize) || self.training.batchSize % self.training.microBatchSize == 0",
        message="must divide training.batchSize: set a divisor of it, or leave it out",
    ),
    Rule(
        path="training.restarts",
        holds=lambda recipe: (
            recipe.training.restarts is None or recipe.training.scheduler is Scheduler.COSINE_WITH_RESTARTS
        ),
        given=("training.scheduler",),
        cel="!has(self.training.restarts) || self.training.scheduler == 'cosine_with_restarts'",
        message="only the scheduler cosine_with_restarts has restarts: use it, or remove the field",
    ),
    Rule(
        path="training.minLearningRate",
        holds=lambda recipe: recipe.training.min_learning_rate is None or recipe.training.scheduler is Scheduler.COSINE,
        given=("training.scheduler",),
        cel="!has(self.training.minLearningRate) || self.training.scheduler == 'cosine'",
        message="only the scheduler cosine has a least learning rate: use it, or remove the field",
    ),
    Rule(
        path="training.minLearningRate",
        holds=lambda recipe: (
            recipe.training.min_learning_rate is None
            or float(recipe.training.min_learning_rate) < float(recipe.training.learning_rate)
        ),
        # A value that is not a decimal is refused by the rule of its type. double() would fail on it.
        given=("training.learningRate",),
        cel=f"!has(self.training.minLearningRate) || !self.training.minLearningRate.matches({literal(DECIMAL)}) || "
        f"!self.training.learningRate.matches({literal(DECIMAL)}) || "
        "double(self.training.minLearningRate) < double(self.training.learningRate)",
        message="must be below training.learningRate: lower it, or remove the field",
    ),
    Rule(
        # evaluation.everySteps needs dataset.validation, so this rule implies it.
        path="training.earlyStopping",
        holds=lambda recipe: recipe.training.early_stopping is None or recipe.evaluation.every_steps is not None,
        cel="!has(self.training.earlyStopping) || has(self.evaluation.everySteps)",
        message="needs evaluation.everySteps, without which only the end is measured, and dataset.validation: "
        "add them, or remove earlyStopping",
    ),
    Rule(
        path="training.earlyStopping.metric",
        holds=lambda recipe: (
            recipe.training.early_stopping is None
            or recipe.training.early_stopping.metric is EvaluationMetric.LOSS
            or recipe.method is Method.DPO
        ),
        cel="!has(self.training.earlyStopping) || self.training.earlyStopping.metric == 'loss' || self.method == 'dpo'",
        message="only pairs have an accuracy (method: dpo): use loss",
    ),
)
