"""Runs that would train the same adapter have one name, and others have another."""

from typing import Any

import pytest

from finetune_trainer.contract.fingerprint import DECIMALS, fingerprint
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.rule import DECIMAL, Rule
from finetune_trainer.contract.wire import Wire
from unit.trainer_train.recipes import recipe

DATA = [SourceObject(uri="s3://data/train.jsonl", size=3, etag="a")]
MODEL = [SourceObject(uri="s3://models/base/config.json", size=5, etag="b")]
ADAPTER = [SourceObject(uri="s3://models/first/adapter_model.safetensors", size=7, sha256="c")]
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"training": {"learningRate": "2e-4"}}, {"training": {"learningRate": "0.00020"}}),
    ({"training": {"maxGradNorm": "1"}}, {}),
    ({"lora": {"dropout": "0.0"}}, {}),
    ({"training": {"neftuneAlpha": "5"}}, {"training": {"neftuneAlpha": "5.0"}}),
    ({"training": {"neftuneAlpha": "0", "minLearningRate": "0", "loraPlusRatio": "1.0"}}, {}),
    ({"training": {"loraPlusRatio": "16"}}, {"training": {"loraPlusRatio": "1.6e1"}}),
    ({"training": {"epochs": 3}}, {}),
    ({"dataset": {"validation": {"fraction": "0.10"}}}, {"dataset": {"validation": {"fraction": "1e-1"}}}),
    ({"lora": {"targetModules": ["q_proj", "v_proj"]}}, {"lora": {"targetModules": ["v_proj", "q_proj", "v_proj"]}}),
    ({"lora": {"modulesToSave": ["a", "b"]}}, {"lora": {"modulesToSave": ["b", "a"]}}),
    ({"model": {"quantization": {"type": "none"}}},
     {"model": {"quantization": {"type": "none", "doubleQuant": False}}}),
    ({"model": {"cache": "pvc://models/cache"}}, {}),
    ({"dataset": {"packing": "disabled"}, "training": {"microBatchSize": 4}}, {}),
]  # fmt: skip
OTHER: list[dict[str, Any]] = [
    {"training": {"learningRate": "2e-5"}},
    {"training": {"epochs": 2}},
    {"training": {"maxSteps": 3}},
    {"training": {"neftuneAlpha": "5"}},
    {"training": {"minLearningRate": "1e-5"}},
    {"training": {"loraPlusRatio": "16"}},
    {"training": {"scheduler": "cosine_with_restarts"}},
    {"lora": {"targetModules": ["q_proj"]}},
    {"lora": {"modulesToSave": ["lm_head"]}},
    {"model": {"quantization": {"doubleQuant": False}}},
    {"dataset": {"maxLength": 1024}},
    {"runToken": "1"},
    {"runToken": "1.0"},
]


def _name(sections: dict[str, Any]) -> str:
    return fingerprint(recipe(**sections), DATA, MODEL)


@pytest.mark.parametrize(("one", "two"), SAME, ids=str)
def test_what_can_be_written_in_two_ways_is_one_run(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert _name(one) == _name(two)


def test_what_shapes_the_adapter_makes_another_run() -> None:
    assert len({_name(sections) for sections in [{}, *OTHER]}) == len(OTHER) + 1


def test_an_adapter_to_continue_from_counts_by_content() -> None:
    start = recipe(lora={"initialAdapterUri": "s3://models/first"})
    moved = recipe(lora={"initialAdapterUri": "pvc://models/second"})
    copied = [ADAPTER[0].model_copy(update={"uri": "pvc://models/second/adapter_model.safetensors"})]
    changed = [ADAPTER[0].model_copy(update={"sha256": "d"})]

    assert fingerprint(start, DATA, MODEL, ADAPTER) == fingerprint(moved, DATA, MODEL, copied)
    assert fingerprint(start, DATA, MODEL, ADAPTER) != fingerprint(start, DATA, MODEL, changed)
    assert fingerprint(start, DATA, MODEL, ADAPTER) != fingerprint(recipe(), DATA, MODEL)


def test_validation_rows_of_their_own_count_by_content() -> None:
    own = recipe(dataset={"validation": {"uri": "s3://data/val.jsonl"}})
    moved = recipe(dataset={"validation": {"uri": "pvc://data/val.jsonl"}})
    rows = SourceObject(uri="s3://data/val.jsonl", size=2, etag="v")
    copied, changed = rows.model_copy(update={"uri": "pvc://data/val.jsonl"}), rows.model_copy(update={"etag": "w"})

    assert fingerprint(own, [*DATA, rows], MODEL) == fingerprint(moved, [*DATA, copied], MODEL)
    assert fingerprint(own, [*DATA, rows], MODEL) != fingerprint(own, [*DATA, changed], MODEL)
    assert fingerprint(own, [*DATA, rows], MODEL) != fingerprint(recipe(), [*DATA, rows], MODEL)


def test_no_decimal_of_the_recipe_is_compared_as_text() -> None:
    shaping = ("model.", "dataset.", "lora.", "training.", "dpo.", "evaluation.", "output.")

    assert {path for path in _decimals(Recipe, "") if path.startswith(shaping)} == set(DECIMALS)


def _decimals(model: type[Wire], prefix: str) -> set[str]:
    found = set()
    for field in model.model_fields.values():
        path = f"{prefix}{field.alias}"
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        rules = [*field.metadata, *(rule for kind in kinds for rule in getattr(kind, "__metadata__", ()))]
        if any(isinstance(rule, Rule) and DECIMAL in (rule.cel or "") for rule in rules):
            found.add(path)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Wire):
                found |= _decimals(kind, f"{path}.")
    return found
