"""Which store a place belongs to."""

from typing import cast

import pytest

from finetune_trainer.contract.recipe import LoraSpec, ModelSpec, StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras


def test_the_models_revision_is_its_own_repositorys_only() -> None:
    from finetune_trainer.storage.hub import HubStore

    model, lora = ModelSpec(uri="hf://org/base", revision="v2"), LoraSpec(initial_adapter_uri="hf://org/adapter")
    for revision in (None, "v3"):
        pinned = lora.model_copy(update={"initial_adapter_revision": revision})
        stores = StoreRegistry(StorageSpec(), None, model=model, lora=pinned)
        base, adapter, other = (
            cast("HubStore", stores(parse_uri(f"hf://org/{name}"))) for name in ("base", "adapter", "other")
        )

        assert (base._revision, adapter._revision, other._revision) == ("v2", revision, None)
        assert stores(parse_uri("hf://org/base/config.json")) is base
