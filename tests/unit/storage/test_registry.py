"""Which store a place belongs to."""

from typing import cast

import pytest

from finetune_trainer.contract.recipe import DatasetSpec, LoraSpec, ModelSpec, StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras


def test_data_of_the_hub_is_read_at_its_revision_or_the_commit_that_preflight_found() -> None:
    from finetune_trainer.storage.hub import HubStore

    dataset = DatasetSpec(uris=["hf://datasets/org/one/en", "hf://datasets/org/two"], revision="v1")
    stores = StoreRegistry(StorageSpec(), None, dataset=dataset, dataset_revisions={"org/two": "c0ffee"})
    one, two, model = (
        cast("HubStore", stores(parse_uri(f"hf://{name}")))
        for name in ("datasets/org/one", "datasets/org/two", "org/one")
    )
    assert (one._revision, two._revision, model._revision) == ("v1", "c0ffee", None)
    assert stores(parse_uri("hf://datasets/org/one/en/train.jsonl")) is one


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
