"""Compares the kept adapter with its base model: validation loss, perplexity, and answers to a few prompts.

The base model is the trained one with its adapter off, so nothing is loaded twice.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peft import get_peft_model_state_dict, set_peft_model_state_dict

from finetune_trainer.contract.recipe.training import Gate
from finetune_trainer.export.facts import Sample
from finetune_trainer.model.adapter import load_adapter_weights
from finetune_trainer.model.base import without_adapter
from finetune_trainer.runtime.log import event
from finetune_trainer.train.early_stopping import EVAL_ACCURACY, EVAL_LOSS
from finetune_trainer.train.gate import require_good_enough
from finetune_trainer.train.samples import Prompts, generate_answers
from finetune_trainer.train.validation_loss import ValidationRows, perplexity, validation_metrics

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer


_PAIR_METRICS: Final = {EVAL_ACCURACY: "reward_accuracy", "eval_rewards/margins": "reward_margin"}
"""Validation metrics of pairs by TRL's names -> their names in the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What was measured.

    Attributes:
        metrics: by name, losses in nats per token: `eval_loss`, `eval_perplexity`, `eval_step` (the step of the adapter
            that is kept), `base_eval_loss` and `base_eval_perplexity`. Of pairs, whose losses are by pair:
            `eval_reward_accuracy` and `eval_reward_margin` in the place of perplexities.
        samples: answers side by side.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Sample] = ()


def compare(
    trainer: "StepTrainer",
    tokenizer: Any,
    rows: ValidationRows | None,
    prompts: Prompts,
    gate: Gate | None,
    initial_adapter: Path | None = None,
) -> Quality:
    """Measures the trainer's adapter and its base model; call it once the training has ended.

    Args:
        trainer: the trainer.
        tokenizer: the model's.
        rows: the validation rows; None when there are none.
        prompts: are answered before and after.
        gate: what the adapter must reach; None for nothing.
        initial_adapter: weights of the adapter that the training went on from, which answers too; None for none.

    Raises:
        StopRequested: before a micro-batch or a token.
        TrainerError: QUALITY_GATE_MISSED.
    """
    metrics: dict[str, float] = {}
    if rows is not None and trainer.evaluation is not None:
        step, kept = trainer.evaluation.kept(trainer.state)
        with without_adapter(trainer.model, trainer.base_weights):
            base = validation_metrics(trainer, rows)[EVAL_LOSS]
        loss, accuracy = kept[EVAL_LOSS], kept.get(EVAL_ACCURACY)
        all_metrics = {EVAL_LOSS: loss, "eval_step": float(step), "base_eval_loss": base}
        if trainer.objective.is_language_loss:
            all_metrics |= {"eval_perplexity": perplexity(loss), "base_eval_perplexity": perplexity(base)}
        else:
            all_metrics |= {f"eval_{name}": kept[key] for key, name in _PAIR_METRICS.items()}
        metrics = {name: value for name, value in all_metrics.items() if math.isfinite(value)}
        event("quality", eval_loss=loss, base_eval_loss=base, eval_accuracy=accuracy, step=step, rows=len(rows))
        if gate is not None:
            require_good_enough(gate, loss, base, accuracy)
    tuned = generate_answers(trainer, tokenizer, prompts)
    with without_adapter(trainer.model, trainer.base_weights):
        untuned = generate_answers(trainer, tokenizer, prompts)
    initial: Sequence[str | None] = [None] * len(tuned)
    if initial_adapter is not None and prompts.texts:
        with _having_weights(trainer.model, initial_adapter):
            initial = generate_answers(trainer, tokenizer, prompts)
    samples = [
        Sample(prompt=prompt, base=before, initial=at_first, tuned=after)
        for prompt, before, at_first, after in zip(prompts.texts, untuned, initial, tuned, strict=True)
    ]
    return Quality(metrics=metrics, samples=samples)


@contextmanager
def _having_weights(model: Any, file: Path) -> Iterator[None]:
    """A context in which the PEFT model has the adapter of a file."""
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    own = {name: weight.detach().clone() for name, weight in weights.items()}
    load_adapter_weights(model, file)
    try:
        yield
    finally:
        set_peft_model_state_dict(model, own)
