"""Whether packed rows can see each other: the model itself is asked.

Attention kernels, hybrid layers and a library's next version may each treat row boundaries differently; a mask that is
assumed and not there trains on neighbours' text in silence. So the loaded model is asked, with a few tokens.
"""

from typing import Any

import torch

from finetune_trainer.model.attention import is_varlen
from finetune_trainer.train.micro_batches import packed_micro_batch

_PROBE_LENGTH = 6


def rows_are_isolated(model: Any, vocabulary: int) -> bool:
    """Whether the second row of a pack is computed alike whatever the first row holds.

    Masked keys have weight zero, so in an isolating model not one bit changes. An 8-bit model quantises the activations
    of all rows together and fails this test; its rows do influence each other a little.

    Args:
        model: the causal language model, in any mode; it is put into evaluation mode for the probe and back.
        vocabulary: number of token ids to choose from.
    """
    was_training = model.training
    model.eval()
    try:
        first, second = (_second_row(model, vocabulary, offset) for offset in (1, 2))
    finally:
        model.train(was_training)
    return torch.equal(first, second)


def _second_row(model: Any, vocabulary: int, offset: int) -> torch.Tensor:
    steps = torch.arange(_PROBE_LENGTH, device=model.device)
    neighbour, row = (steps * 7 + offset) % vocabulary, (steps * 3 + 5) % vocabulary
    inputs = packed_micro_batch([neighbour, row], [neighbour, row], varlen=is_varlen(model))
    del inputs["labels"]
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits[0, _PROBE_LENGTH:]
