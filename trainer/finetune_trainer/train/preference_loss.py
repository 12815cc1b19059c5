"""The loss of a pair of answers: Direct Preference Optimization and its kin, in TRL's form.

With r(y) = log p(y | x) - log p_ref(y | x), the log-probability of an answer's tokens under the trained model less that
under the reference, and d = r(chosen) - r(rejected):

| lossType | loss of a pair | source |
|---|---|---|
| sigmoid | -(1 - s) log sigmoid(beta d) - s log sigmoid(-beta d), s: labelSmoothing | arXiv:2305.18290, equation 7 |
| hinge | max(0, 1 - beta d) | arXiv:2305.10425, with the margin of DPO |
| ipo | (r'(chosen) - r'(rejected) - 1 / (2 beta))^2, r': r by the answer's tokens | arXiv:2310.12036, equation 17 |

The smoothed form is Mitchell's conservative DPO. TRL divides by the tokens for IPO too, as the paper's authors have
said is meant.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import logsigmoid, pad

from finetune_trainer.contract.recipe.preference import DpoLossType, DpoSpec

MEASURES = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
"""What is measured of pairs beside the loss, by TRL's names: means over pairs.

A reward is beta r(y). A pair's accuracy is 1 where the chosen answer has the higher reward.
"""


class PairLogProbs(NamedTuple):
    """Log-probabilities of pairs: the chosen answers' in the first column, the rejected ones' in the second.

    Attributes:
        log_probs: sums over an answer's tokens, natural logarithms, shape (pairs, 2), float32.
        tokens: tokens of each answer, shape (pairs, 2).
    """

    log_probs: torch.Tensor
    tokens: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, trained: torch.Tensor, lengths: list[int] | None) -> "PairLogProbs":
        """Sums over the sequences of a micro-batch, in which the two answers of a pair follow each other.

        Args:
            scores: the log-probability of every token after the first, 0 for those that are not trained, shape
                (rows, tokens - 1).
            trained: whether each of those tokens is trained, of the same shape.
            lengths: tokens of each sequence where all stand in one row; None where each has a row.
        """
        if lengths is None:
            sums, tokens = scores.sum(dim=1), trained.sum(dim=1)
        else:
            # The first token of a sequence is never trained, so it does not matter whose neighbour's score it has.
            sums = torch.stack([part.sum() for part in torch.split(pad(scores[0], (1, 0)), lengths)])
            tokens = torch.stack([part.sum() for part in torch.split(pad(trained[0], (1, 0)), lengths)])
        return cls(sums.view(-1, 2), tokens.view(-1, 2))


class PairLosses(NamedTuple):
    """What a micro-batch of pairs gives.

    Attributes:
        losses: of each pair, shape (pairs,).
        measures: sums of `MEASURES` over the pairs, shape (4,), without a gradient.
    """

    losses: torch.Tensor
    measures: torch.Tensor


def pair_losses(spec: DpoSpec, policy: PairLogProbs, reference: torch.Tensor | None) -> PairLosses:
    """The losses of pairs.

    Args:
        spec: the loss and its settings.
        policy: the trained model's log-probabilities.
        reference: those of the reference model, shape (pairs, 2); None for none (`referenceFree`).
    """
    beta, smoothing = float(spec.beta), float(spec.label_smoothing)
    ratios = policy.log_probs if reference is None else policy.log_probs - reference.to(policy.log_probs.device)
    margin = ratios[:, 0] - ratios[:, 1]
    match spec.loss_type:
        case DpoLossType.SIGMOID:
            losses = -(1 - smoothing) * logsigmoid(beta * margin) - smoothing * logsigmoid(-beta * margin)
        case DpoLossType.HINGE:
            losses = torch.relu(1 - beta * margin)
        case DpoLossType.IPO:
            means = ratios / policy.tokens.clamp(min=1)
            losses = (means[:, 0] - means[:, 1] - 1 / (2 * beta)).square()
    rewards = beta * ratios.detach()
    margins = rewards[:, 0] - rewards[:, 1]
    measures = torch.stack([rewards[:, 0].sum(), rewards[:, 1].sum(), margins.sum(), (margins > 0).sum()])
    return PairLosses(losses, measures)
