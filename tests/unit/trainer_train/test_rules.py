"""Rules over several fields."""

from typing import Any

import pytest

from finetune_trainer.contract.rules import problems
from unit.trainer_train.recipes import recipe

BROKEN: dict[str, dict[str, Any]] = {
    "spec.model.revision": {"model": {"uri": "s3://models/base", "revision": "main"}},
    "spec.model.cache": {"model": {"uri": "pvc://models/base", "cache": "pvc://models/cache"}},
    "spec.model.attention": {"model": {"attention": "varlen"}, "dataset": {"packing": "disabled"}},
    "spec.model.sharding": {"model": {"sharding": "full"}, "machine": {"gpus": 1}},
    "spec.dataset.fields": {"dataset": {"fields": {"prompt": "question", "text": "body"}}},
    "spec.dataset.fields.text": {"dataset": {"schema": "promptCompletion", "fields": {"text": "body", "prompt": "q"}}},
    "spec.dataset.chatTemplate": {"dataset": {"chatTemplate": "llama-2", "schema": "text"}},
    "spec.dataset.loss": {"dataset": {"loss": "completion", "schema": "text"}},
    "spec.lora.targetModules": {"lora": {"targetModules": ["all-linear", "lm_head"]}},
    "spec.lora.initialAdapterRevision": {
        "lora": {"initialAdapterUri": "s3://models/first", "initialAdapterRevision": "main"}
    },
    "spec.training.microBatchSize": {"training": {"batchSize": 16, "microBatchSize": 3}},
    "spec.lora.variant": {"model": {"quantization": {"type": "int8"}}, "lora": {"variant": "dora"}},
    "spec.lora.modulesToSave": {"lora": {"targetModules": ["q_proj"], "modulesToSave": ["lm_head", "q_proj"]}},
    "spec.training.restarts": {"training": {"restarts": 2}},
    "spec.training.earlyStopping": {"training": {"earlyStopping": {}}, "dataset": {"validation": {"fraction": "0.5"}}},
    "spec.training.earlyStopping.metric": {
        "training": {"earlyStopping": {"metric": "accuracy"}},
        "dataset": {"validation": {"fraction": "0.5"}},
        "evaluation": {"everySteps": 10},
    },
    "spec.evaluation.everySteps": {"evaluation": {"everySteps": 10}},
    "spec.evaluation.gate": {"evaluation": {"gate": {"maxPerplexity": "8"}}},
}


@pytest.mark.parametrize("path", BROKEN)
def test_broken_rule_names_field_value_and_remedy(path: str) -> None:
    (found,) = problems(recipe(**BROKEN[path]))

    assert str(found) == f"{path}: {found.message} (found {found.value})"


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"revision": "main"}},
        {"model": {"cache": "pvc://models"}},
        {"model": {"uri": "s3://models/base", "cache": "pvc://models/cache"}},
        {"model": {"attention": "varlen"}},
        {"model": {"attention": "sdpa"}, "dataset": {"packing": "disabled"}},
        {"model": {"sharding": "full"}, "machine": {"gpus": 2}},
        {"model": {"sharding": "full"}, "machine": {"gpus": 0, "nodes": 2}},
        {"dataset": {"fields": {"prompt": "question"}}},
        {"dataset": {"fields": {"role": "from"}, "schema": "messages"}},
        {"dataset": {"chatTemplate": "llama-2", "schema": "alpaca"}},
        {"dataset": {"chatTemplate": "llama-2", "schema": "promptCompletion"}},  # lists of turns, perhaps
        {"dataset": {"loss": "completion", "schema": "messages"}},
        {
            "dataset": {"validation": {"fraction": "0.5"}},
            "training": {"earlyStopping": {}},
            "evaluation": {"everySteps": 10, "gate": {"minLossImprovement": "0"}},
        },
        {"evaluation": {"samplePrompts": ["hello"]}},
        {"lora": {"initialAdapterUri": "hf://org/first", "initialAdapterRevision": "main"}},
        {"lora": {"dropout": "0.99", "targetModules": ["q_proj", "v_proj"]}},
        {"training": {"batchSize": 16, "microBatchSize": 16}},
        {"training": {"scheduler": "cosine_with_restarts", "restarts": 3}},
        {"training": {"minLearningRate": "1e-4", "learningRate": "2e-4"}},
        {"lora": {"variant": "dora", "modulesToSave": ["lm_head"]}},
    ],
)
def test_consistent_recipe_passes(sections: dict[str, Any]) -> None:
    assert problems(recipe(**sections)) == []


def test_one_repository_is_read_at_one_revision() -> None:
    lora = {"initialAdapterUri": "hf://org/both", "initialAdapterRevision": "v1"}
    (found,) = problems(recipe(model={"uri": "hf://org/both"}, lora=lora))
    assert str(found).startswith("spec.lora.initialAdapterRevision: model.uri is the same repository")


def test_all_broken_rules_are_named_at_once() -> None:
    found = problems(recipe(lora={"targetModules": ["all-linear", "q_proj"]}, training={"microBatchSize": 5}))

    assert [item.path for item in found] == ["spec.lora.targetModules", "spec.training.microBatchSize"]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"scheduler": "linear"}, "only the scheduler cosine has a least learning rate"),
        ({"learningRate": "0.0001"}, "must be below training.learningRate"),
    ],
)
def test_a_least_learning_rate_is_the_end_of_a_cosine(training: dict[str, Any], said: str) -> None:
    (found,) = problems(recipe(training={"minLearningRate": "1e-4", **training}))
    assert str(found).startswith(f"spec.training.minLearningRate: {said}")


def test_early_stopping_without_measurements_on_the_way_is_broken() -> None:
    sections = {"dataset": {"validation": {"fraction": "0.5"}}, "training": {"earlyStopping": {}}}

    assert [item.path for item in problems(recipe(**sections))] == ["spec.training.earlyStopping"]


@pytest.mark.parametrize(
    ("sections", "remedy"),
    [
        ({"machine": {"gpus": 0}}, "raise resources.gpus or resources.nodes"),
        ({"model": {"deviceMap": "balanced"}, "machine": {"gpus": 2}}, "remove one of the two"),
        ({"model": {"quantization": {"type": "int8"}}, "machine": {"gpus": 2}}, "use nf4, fp4 or none"),
        ({"lora": {"variant": "dora"}, "machine": {"gpus": 2}}, "use lora or rslora"),
    ],
)
def test_what_cannot_be_sharded_says_what_to_do(sections: dict[str, Any], remedy: str) -> None:
    (found,) = problems(recipe(**{**sections, "model": {"sharding": "full", **sections.get("model", {})}}))

    assert found.path == "spec.model.sharding"
    assert remedy in found.message
