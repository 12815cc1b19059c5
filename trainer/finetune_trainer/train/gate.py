"""evaluation.gate: whether an adapter is good enough to be kept."""

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.training import Gate
from finetune_trainer.train.validation_loss import perplexity


def require_good_enough(gate: Gate, loss: float, base: float, accuracy: float | None = None) -> None:
    """Holds the kept adapter's validation loss, and the base model's, against the gate.

    Args:
        gate: the gate.
        loss: the adapter's validation loss: nats per token, or of a pair.
        base: the base model's.
        accuracy: share of the validation pairs whose chosen answer has the higher reward; None of rows without pairs.

    Raises:
        TrainerError: QUALITY_GATE_MISSED, with every bound that is missed and the figures.
    """
    missed = []
    if (least := gate.min_loss_improvement) is not None and base - loss < float(least):
        missed.append(f"the loss improved by {base - loss:.4f}, asked for is {least} (minLossImprovement)")
    if (most := gate.max_perplexity) is not None and perplexity(loss) > float(most):
        missed.append(f"the perplexity is {perplexity(loss):.4g}, allowed is {most} (maxPerplexity)")
    least_accuracy = gate.min_accuracy
    if least_accuracy is not None and accuracy is not None and accuracy < float(least_accuracy):
        missed.append(f"the accuracy is {accuracy:.4g}, asked for is {least_accuracy} (minAccuracy)")
    if missed:
        figures = f"validation loss {loss:.4f}, {base:.4f} without the adapter"
        raise TrainerError(
            FailureReason.QUALITY_GATE_MISSED, f"spec.evaluation.gate: {'; '.join(missed)} ({figures}); nothing is kept"
        )
