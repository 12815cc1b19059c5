"""The tiles of the LM head: on a GPU whole blocks of a matrix product, and enough of them."""

import pytest

from finetune_trainer.memory.head_tile import HeadTile


@pytest.mark.parametrize(
    ("vocabulary", "tokens"), [(32_000, 1024), (49_152, 640), (128_256, 512), (151_936, 512), (262_144, 512)]
)
def test_a_gpu_gets_the_whole_vocabulary_and_full_blocks(vocabulary: int, tokens: int) -> None:
    tile = HeadTile.of(vocabulary, cuda=True)

    assert tile == (tokens, vocabulary)
    assert tile.tokens % 128 == 0
    assert tile.elements(8192) == tokens * vocabulary
    assert tile.elements(100) == 100 * vocabulary


def test_a_cpu_gets_what_its_cache_holds() -> None:
    assert HeadTile.of(128_256, cuda=False) == (512, 2048)
    assert HeadTile.of(352, cuda=False) == (2978, 352)
