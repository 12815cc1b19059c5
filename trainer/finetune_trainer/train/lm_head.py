"""The log-probabilities of the trained tokens, without ever holding the logits of a whole micro-batch.

A vocabulary of 128k tokens makes the logits of 8192 tokens 4 GB. TRL scores them in tiles too (its fused LM head), but
on a CPU it scores untrained tokens with the rest, and it makes every logit twice, in the forward and in the backward
pass. The head of a LoRA training is frozen: the gradient by its input is known as soon as the logits are, so one
product less does, and a third of a small model's whole training is its head.

It takes the place of TRL's function under TRL's own names (`fused_lm_head`), and leaves to it what it does not know:
a head that is trained itself, and models that do more to their logits than a linear layer.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput

from finetune_trainer.memory.head_tile import HeadTile
from finetune_trainer.train.micro_batches import IGNORED

_PROBE_IDS = 5


class FrozenHeadLogProbs(torch.autograd.Function):
    """Log-probability of one token id for each hidden state, through a linear layer that is not trained.

    A tile knows only the words before it. As in FlashAttention (Dao et al., 2022, section 3.1), what was summed of
    exp(logit - highest logit so far) fades by exp(old - new) when a tile has a higher one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ids: torch.Tensor,
        tile: HeadTile,
    ) -> torch.Tensor:
        """Computes the log-probabilities, and the gradient that the backward pass will ask for.

        Args:
            ctx: torch's.
            hidden: shape (tokens, width).
            weight: of the head, shape (vocabulary, width).
            bias: of the head, shape (vocabulary,).
            ids: shape (tokens,).
            tile: at most so many logits are held at a time.

        Returns:
            Shape (tokens,), float32, natural logarithms.
        """
        log_probs = torch.empty(len(ids), dtype=torch.float32, device=hidden.device)
        # A measurement asks for none. In float32: the loss's scale, which float16 needs, comes in the backward pass.
        needs_gradient = ctx.needs_input_grad[0]
        gradient = torch.zeros(hidden.shape if needs_gradient else 0, dtype=torch.float32, device=hidden.device)
        for begin in range(0, len(ids), tile.tokens):
            rows = slice(begin, begin + tile.tokens)
            log_probs[rows] = _log_probs(hidden[rows], weight, bias, ids[rows, None], tile.words, gradient[rows])
        ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        return log_probs

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient by `hidden`."""
        (gradient,) = ctx.saved_tensors
        return (gradient * outer[0][:, None]).to(ctx.dtype), None, None, None, None


def _log_probs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    chosen: torch.Tensor,
    words: int,
    gradient: torch.Tensor,
) -> torch.Tensor:
    """The log-probabilities of these tokens, shape (tokens,).

    Args:
        hidden: shape (tokens, width).
        weight: of the head.
        bias: of the head.
        chosen: the ids, shape (tokens, 1).
        words: how many of the vocabulary are looked at together.
        gradient: zeros of the shape of `hidden`, which become the gradient by it; or empty when none is wanted.
    """
    score, total = (torch.zeros(chosen.shape, dtype=torch.float32, device=hidden.device) for _ in range(2))
    top = torch.full_like(score, torch.finfo(torch.float32).min)
    for first in range(0, len(weight), words):
        part = weight[first : first + words]
        part_bias = None if bias is None else bias[first : first + words]
        logits = torch.nn.functional.linear(hidden, part, part_bias).float()
        place = chosen - first
        here = logits.gather(1, place.clamp(0, len(part) - 1))
        score = torch.where((place >= 0) & (place < len(part)), here, score)
        higher = torch.maximum(top, logits.amax(dim=-1, keepdim=True))
        fade, top = (top - higher).exp_(), higher
        # In place and without dividing by the sum: on a CPU every pass over the tile counts.
        shares = logits.sub_(top).exp_()
        total.mul_(fade).add_(shares.sum(dim=-1, keepdim=True))
        if len(gradient):
            gradient.mul_(fade).add_(shares.to(weight.dtype) @ part)
    if len(gradient):
        # The gradient of log p(id) by the logits is 1 at the id, less the probabilities.
        gradient.div_(total).neg_().add_(weight[chosen[:, 0]])
    return (score - top - total.log())[:, 0]


def trained_token_positions(labels: torch.Tensor) -> torch.Tensor:
    """The places whose next token is trained, in the flattened tokens of a micro-batch.

    Their number is read from the labels. On a GPU that waits for everything before, so it is asked of labels on the
    host.

    Args:
        labels: shape (rows, tokens).

    Returns:
        Shape (trained tokens,), ascending.
    """
    trained = torch.nn.functional.pad(labels[:, 1:] != IGNORED, (0, 1))
    return trained.flatten().nonzero()[:, 0]


def use_frozen_lm_head(model: Any, before: Callable[[], object] = lambda: None) -> bool:
    """Puts this module's head in the place of TRL's, where it knows the model's; call it once the trainer is made.

    Args:
        model: the causal language model below the adapter, with TRL's fused head on.
        before: called before the head's weight is read.

    Returns:
        Whether it has taken the place.
    """
    if not is_plain_lm_head(model):
        return False
    fused = model.forward

    def forward(
        self: Any,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        trained_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, **kwargs, **({"labels": labels} if labels is not None else {}))
        head = self.get_output_embeddings()
        hidden = backbone(self)(*args, **kwargs | {"use_cache": False}).last_hidden_state.flatten(0, 1)
        positions = trained_token_positions(labels) if trained_positions is None else trained_positions
        # With the layers spread over several devices, the last may be on another than the head.
        place, dtype = head.weight.device, head.weight.dtype
        hidden = hidden.index_select(0, positions.to(hidden.device)).to(place, dtype)
        ids = labels.flatten().index_select(0, positions + 1).to(place)
        before()
        tile = HeadTile.of(len(head.weight), cuda=place.type == "cuda")
        scores = FrozenHeadLogProbs.apply(hidden, head.weight, head.bias, ids, tile)
        spread = scores.new_zeros(labels.numel()).index_copy(0, positions.to(place), scores).view(labels.shape)
        return FusedCausalLMOutput(log_probs=spread[:, :-1], label_mask=(labels[:, 1:] != IGNORED).to(place))

    model.forward = MethodType(forward, model)
    return True


def backbone(model: Any) -> Any:
    """The causal language model without its head.

    transformers' `base_model` is the model itself where the class names the attribute wrongly (Llama 4's text model).
    """
    return model.model if model.base_model is model else model.base_model


def is_plain_lm_head(model: Any) -> bool:
    """Whether a model's logits are its last hidden states through a frozen linear layer and no more.

    Some models scale their logits (Granite, Cohere), each in its own words: so the model is asked, with a few tokens.
    A cap on the logits (Gemma 2) may leave small ones as they are; those models say so in one word.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or any(part.requires_grad for part in head.parameters()):
        return False
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None:
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            ids = torch.arange(_PROBE_IDS, device=model.device)[None]
            logits = model(input_ids=ids, use_cache=False).logits
            hidden = backbone(model)(input_ids=ids, use_cache=False).last_hidden_state
            return torch.equal(head(hidden), logits)
    finally:
        model.train(was_training)
