"""Position embeddings that depend on the longest row of a pass.

LongRoPE (arXiv:2402.13753; Phi 3 and Phi 4 mini) has two sets of frequencies. transformers takes the set for long rows
for all rows of a pass as soon as one of them is longer than the model's original length
(transformers:modeling_rope_utils.py, longrope_frequency_update). The other kind that looks at the longest row, dynamic
NTK scaling, does so only beyond `max_position_embeddings`, and such rows are refused (row_limits.py).
"""

from collections.abc import Mapping
from typing import Any

_LONGROPE = "longrope"


def longest_row_of_short_kind(config: Mapping[str, Any]) -> int | None:
    """Most tokens of a row with the short set of frequencies; None for a model with one set.

    Args:
        config: the language model's configuration, as transformers has it.
    """
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return None
    # A model with several kinds of layers has parameters for each kind.
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, Mapping))]
    limits = (kind.get("original_max_position_embeddings") for kind in kinds if kind.get("rope_type") == _LONGROPE)
    return min((limit for limit in limits if isinstance(limit, int)), default=None)
