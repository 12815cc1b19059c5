"""When the validation loss no longer improves."""

import pytest

from finetune_trainer.contract.recipe.training import EarlyStopping, EvaluationMetric
from finetune_trainer.train.early_stopping import has_stopped_improving, validation_losses, validation_scores


@pytest.mark.parametrize(
    ("losses", "patience", "least", "ends"),
    [
        ([], 1, "0", False),
        ([3.0], 1, "0", False),
        ([3.0, 3.0], 1, "0", True),
        ([3.0, 3.1, 2.9], 2, "0", False),
        ([3.0, 3.1, 3.2], 2, "0", True),
        ([3.0, 3.1, 2.9, 3.0], 2, "0", False),
        ([3.0, 2.95, 2.9], 2, "0.2", True),
        # Many small falls are one large one, measured from the last improvement.
        ([3.0, 2.95, 2.75], 2, "0.2", False),
        ([3.0, 2.75], 1, "0.25", True),
    ],
)
def test_the_last_losses_all_failed_to_improve(losses: list[float], patience: int, least: str, ends: bool) -> None:
    assert has_stopped_improving(losses, EarlyStopping(patience=patience, min_improvement=least)) is ends


def test_an_accuracy_improves_when_it_rises() -> None:
    log = [
        {"step": step, "eval_loss": loss, "eval_rewards/accuracies": accuracy}
        for step, loss, accuracy in ((2, 0.6, 0.5), (4, 0.5, 0.8), (6, 0.4, 0.7), (8, 0.3, 0.8))
    ]

    by_loss, by_accuracy = (validation_scores(log, metric) for metric in EvaluationMetric)

    assert not has_stopped_improving(by_loss.values(), EarlyStopping(patience=2))
    assert has_stopped_improving(by_accuracy.values(), EarlyStopping(patience=2))
    assert min(by_accuracy, key=lambda step: by_accuracy[step]) == 4, "ties go to the earlier step"


def test_losses_come_from_the_log() -> None:
    log = [
        {"step": 1, "loss": 4.0},
        {"step": 2, "eval_loss": 3.5},
        {"step": 2, "loss": 3.9},
        {"step": 4, "eval_loss": 3.0},
    ]

    assert validation_losses(log) == {2: 3.5, 4: 3.0}
