"""Parsing a spec: defaults, and messages that name every problem."""

import re
from typing import Any

import pytest

from finetune_operator.api.finetunejob import SpecError, parse_job, parse_spec
from finetune_operator.api.names import MAX_NAME, child_name
from finetune_trainer.contract.recipe import JobIdentity

MINIMAL: dict[str, Any] = {
    "model": {"uri": "hf://meta-llama/Llama-2-7b-chat-hf"},
    "dataset": {"uri": "s3://data/support/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}


def test_three_facts_are_enough() -> None:
    spec = parse_spec(MINIMAL)
    assert (spec.lora.rank, spec.training.learning_rate, spec.resources.gpus) == (16, "2e-4", 1)


def test_a_parsed_spec_is_parsed_again_to_the_same() -> None:
    spec = parse_spec(MINIMAL)
    assert parse_spec(spec.to_dict()) == spec


def test_every_problem_is_named_with_path_value_and_remedy() -> None:
    raw = MINIMAL | {
        "model": {"uri": "meta-llama/Llama-2-7b-chat-hf"},
        "training": {"learningRate": 0.0002},
        "lorra": {},
    }
    with pytest.raises(SpecError) as refused:
        parse_spec(raw)
    problems = {problem.path: problem for problem in refused.value.problems}
    assert set(problems) == {"spec.model.uri", "spec.training.learningRate", "spec.lorra"}
    assert "hf://org/name" in problems["spec.model.uri"].message
    assert problems["spec.training.learningRate"].message == 'must be of type string: "number"'
    assert "in quotes" in problems["spec.training.learningRate"].remedy
    assert problems["spec.training.learningRate"].value == "0.0002"
    assert str(problems["spec.lorra"]) == 'spec.lorra: unknown field "spec.lorra"; it is called lora here (found {})'


def test_a_missing_section_is_named() -> None:
    with pytest.raises(SpecError, match=re.escape("spec.output: Required value")):
        parse_spec({"model": MINIMAL["model"], "dataset": MINIMAL["dataset"]})


def test_rules_over_several_sections_name_the_field_to_change() -> None:
    raw = MINIMAL | {"training": {"batchSize": 16, "microBatchSize": 3}, "lora": {"targetModules": ["all-linear", "q"]}}
    with pytest.raises(SpecError) as refused:
        parse_spec(raw)
    assert [problem.path for problem in refused.value.problems] == [
        "spec.lora.targetModules",
        "spec.training.microBatchSize",
    ]


def test_a_file_has_the_names_that_the_server_knows_and_no_others() -> None:
    with pytest.raises(
        SpecError, match=r'unknown field "spec\.training\.learning_rate"; it is called learningRate here'
    ):
        parse_spec(MINIMAL | {"training": {"learning_rate": "1e-4"}})


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("lora", {"rank": "16"}, 'spec.lora.rank: must be of type integer: "string"'),
        ("lora", {"rank": 16.0}, 'spec.lora.rank: must be of type integer: "number"'),
        ("lora", {"rank": True}, 'spec.lora.rank: must be of type integer: "boolean"'),
        ("model", {"uri": "hf://a/b", "trustRemoteCode": "yes"}, 'trustRemoteCode: must be of type boolean: "string"'),
        ("model", {"uri": "hf://a/b", "quantization": {"doubleQuant": "true"}}, 'must be of type boolean: "string"'),
        ("preflight", {"enabled": 1}, 'spec.preflight.enabled: must be of type boolean: "integer"'),
        ("suspend", "yes", 'spec.suspend: must be of type boolean: "string"'),
        ("runToken", 2, 'spec.runToken: must be of type string: "integer"'),
    ],
)
def test_a_value_of_another_type_is_refused_as_the_server_does(section: str, value: object, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec(MINIMAL | {section: value})


def test_quantities_may_be_numbers_and_are_strings_here() -> None:
    spec = parse_spec(MINIMAL | {"resources": {"cpu": 4, "memory": "16Gi"}})
    assert (spec.resources.cpu, spec.resources.memory) == ("4", "16Gi")


@pytest.mark.parametrize("value", [True, -1, 1.5, "1.5.5", "16 Gi", "16Gi\n", "-1"])
def test_what_is_no_quantity_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match=r"quantity|string"):
        parse_spec(MINIMAL | {"resources": {"memory": value}})


def test_the_recipe_holds_what_shapes_the_result() -> None:
    spec = parse_spec(MINIMAL | {"runToken": "again", "lora": {"rank": 8}})
    recipe = spec.recipe(JobIdentity(name="support-bot"))
    assert (recipe.lora.rank, recipe.run_token, str(recipe.output.uri)) == (8, "again", "s3://models/adapters")


def test_weights_may_be_divided_over_gpus_and_nodes_and_not_over_one() -> None:
    divided = MINIMAL | {"model": MINIMAL["model"] | {"sharding": "full"}}
    recipe = parse_spec(divided | {"resources": {"gpus": 2, "nodes": 3}}).recipe(JobIdentity(name="support-bot"))
    assert recipe.machine.processes == 6
    with pytest.raises(SpecError, match=r"spec\.model\.sharding.*raise resources\.gpus or resources\.nodes"):
        parse_spec(divided)


def test_an_object_of_the_server_without_status_counts_as_unseen() -> None:
    metadata = {"name": "a", "namespace": "b", "uid": "c", "creationTimestamp": "2026-11-24T10:00:00Z"}
    job = parse_job({"metadata": metadata, "spec": MINIMAL})
    assert job.key == ("b", "a")
    assert job.status.observed_generation == -1
    assert not job.deleting


def test_child_names_fit_and_differ() -> None:
    long, longer = "a" * MAX_NAME, "a" * (MAX_NAME - 1) + "b"
    names = {
        child_name(job, role, attempt)
        for job in (long, longer)
        for role in ("train", "preflight")
        for attempt in (1, 10)
    }
    assert len(names) == 8
    assert max(map(len, names)) <= MAX_NAME
    assert child_name("support-bot", "train", 1) == "support-bot-train-1"
