"""The model's answers to a few prompts, by greedy decoding: the same every time."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.tokenization.prompt_encoder import PromptEncoder

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer

MOST_NEW_TOKENS = 256
"""An answer ends here at the latest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompts, ready to be put.

    Attributes:
        texts: as the recipe has them.
        ids: their tokens.
        stop_ids: tokens that end an answer.
    """

    texts: Sequence[str] = ()
    ids: Sequence[tuple[int, ...]] = ()
    stop_ids: frozenset[int] = frozenset()


def tokenize_prompts(texts: Sequence[str], tokenizer: Any, *, conversations: bool) -> Prompts:
    """Tokenises prompts; before the training, so that one which cannot be put does not end a run of hours.

    Raises:
        TrainerError: the chat template refuses one.
    """
    if not texts:
        return Prompts()
    prompt_encoder, ids = PromptEncoder(tokenizer, conversations=conversations), []
    for number, text in enumerate(texts):
        try:
            ids.append(prompt_encoder(text))
        except FaultError as error:
            raise TrainerError(
                FailureReason.INVALID_SPEC,
                f"spec.evaluation.samplePrompts[{number}]: {error.fault.found}; remove it or change the template",
            ) from error
    return Prompts(texts=texts, ids=ids, stop_ids=prompt_encoder.stop_ids)


def generate_answers(trainer: "StepTrainer", tokenizer: Any, prompts: Prompts) -> list[str]:
    """What the trainer's model answers, as it is now, in at most 256 tokens and what room it has.

    Raises:
        StopRequested: before a token.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            generated = [_generate_answer(trainer, ids, prompts.stop_ids) for ids in prompts.ids]
    finally:
        model.train(was_training)
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in generated]


def _generate_answer(trainer: "StepTrainer", prompt: tuple[int, ...], stop_ids: frozenset[int]) -> list[int]:
    model, generated, cache = trainer.model, list[int](), None
    positions = (
        getattr(model.config.get_text_config(), "max_position_embeddings", None) or len(prompt) + MOST_NEW_TOKENS
    )
    # All logits of a long prompt would be gigabytes; models of one's own code may not know the argument.
    parameters = inspect.signature(type(model.get_base_model()).forward).parameters
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
    ids = torch.tensor([prompt], device=trainer.args.device)
    mask = torch.ones_like(ids)
    for _ in range(min(MOST_NEW_TOKENS, positions - len(prompt))):
        trainer.raise_if_stopping()
        trainer.heartbeat()
        output = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **last_only)
        cache, token = output.past_key_values, int(output.logits[0, -1].argmax())
        if token in stop_ids:
            break
        generated.append(token)
        ids = torch.tensor([[token]], device=mask.device)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return generated
