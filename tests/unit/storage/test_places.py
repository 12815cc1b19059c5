"""Which store a place belongs to."""

from typing import cast

import pytest

from finetune_trainer.contract.recipe import ModelSpec, StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.places import Places


def test_the_models_revision_is_its_own_repositorys_only() -> None:
    pytest.importorskip("huggingface_hub")
    from finetune_trainer.storage.hub import HubStore

    places = Places(StorageSpec(), None, model=ModelSpec(uri="hf://org/base", revision="v2"))
    base, adapter = (cast("HubStore", places(parse_uri(uri))) for uri in ("hf://org/base", "hf://org/adapter"))

    assert (base._revision, adapter._revision) == ("v2", None)
    assert places(parse_uri("hf://org/base/config.json")) is base
