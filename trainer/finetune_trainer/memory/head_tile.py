"""The size of the tiles in which the LM head's logits are computed (train/lm_head.py)."""

from typing import NamedTuple

_CPU_LOGITS = 2**20
"""Logits of a tile on a CPU: they and the tile's part of the head should stay in the cache."""
_CPU_WORDS = 2**11
"""Words of a tile on a CPU. The parts of the vocabulary are shared by several hundred tokens: the head, which no cache
holds, is read once for them."""
_GPU_LOGITS = 2**25
"""Logits of a tile on a GPU, which has the whole vocabulary in one."""
_GPU_TOKENS, _GPU_MULTIPLE = 512, 128
"""Least tokens of a tile on a GPU, and what their number is a multiple of. A matrix product computes blocks of 128
rows, and one that is not full takes as long. Every tile reads the whole head twice: with fewer tokens, reading takes
longer than computing."""


class HeadTile(NamedTuple):
    """How much of the logits is there at a time.

    Attributes:
        tokens: its height.
        words: its width, words of the vocabulary.
    """

    tokens: int
    words: int

    @classmethod
    def of(cls, vocabulary: int, *, cuda: bool) -> "HeadTile":
        """The one for a head of so many words."""
        if not cuda:
            words = min(vocabulary, _CPU_WORDS)
            return cls(max(1, _CPU_LOGITS // words), words)
        return cls(max(_GPU_TOKENS, _GPU_LOGITS // vocabulary // _GPU_MULTIPLE * _GPU_MULTIPLE), vocabulary)

    def elements(self, tokens: int) -> int:
        """Logits of the largest tile of so many tokens."""
        return min(tokens, self.tokens) * self.words
