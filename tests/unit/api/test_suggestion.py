"""What somebody meant who wrote a field or a value that does not exist."""

import re
from typing import Any

import pytest

from finetune_operator.api import foreign_words, suggestion
from finetune_operator.api.crd import custom_resource_definition
from finetune_operator.api.finetunejob import SpecError, parse_spec

MINIMAL: dict[str, Any] = {
    "model": {"uri": "hf://org/base"},
    "dataset": {"uri": "s3://data/train.jsonl"},
    "output": {"uri": "s3://models/adapters"},
}


def problems(section: str, settings: dict[str, Any]) -> list[str]:
    """The problems of a spec with these settings in one of its sections."""
    with pytest.raises(SpecError) as refused:
        parse_spec(MINIMAL | {section: MINIMAL.get(section, {}) | settings})
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        # slips
        ("lora.rnk", "it is called rank here"),
        ("training.batchsize", "it is called batchSize here"),
        ("lora.target_modules", "it is called targetModules here"),
        ("lorra", "it is called lora here"),
        # other trainers' words
        ("lora.r", "it is called rank here"),
        ("lora.lora_alpha", "it is called alpha here"),
        ("lora.lora_dropout", "it is called dropout here"),
        ("lora.type", "it is called variant here"),
        ("dataset.training_file", "it is called uri here"),
        ("training.learning_rate_multiplier", "it is called learningRate here"),
        ("training.num_train_epochs", "it is called epochs here"),
        ("training.max_steps", "it is called maxSteps here"),
        ("training.lr", "it is called learningRate here"),
        ("training.lr_scheduler_type", "it is called scheduler here"),
        ("training.warmup_ratio", 'it is called warmup here (below "1" a share of all steps)'),
        ("training.optim", "it is called optimizer here"),
        ("training.per_device_train_batch_size", "it is called microBatchSize here"),
        ("training.gradientAccumulation", "it is called batchSize here (rows per optimizer step in all"),
        ("training.gradient_accumulation_steps", "it is called batchSize here (rows per optimizer step"),
        ("dpo.pref_beta", "it is called beta here"),
        ("training.rl_beta", "here it is dpo.beta"),
        ("rl", "it is called method here"),
        ("dpo.rpo_alpha", "it is called sftWeight here"),
        ("dpo.ref_model", "none is needed: the reference is the base model"),
        ("training.bf16", "here it is model.quantization.computeDtype (bfloat16)"),
        ("training.max_seq_length", "here it is dataset.maxLength"),
        ("model.load_in_4bit", "here it is model.quantization.type (nf4 or fp4)"),
        ("model.name", "it is called uri here"),
        ("model.quantization.bnb_4bit_quant_type", "it is called type here"),
        ("dataset.name", "it is called uri here"),
        ("learning_rate", "here it is training.learningRate"),
        ("resources.limits", "gpus, cpu and memory are fields of resources"),
        ("training.group_by_length", "none is needed: micro-batches are filled by tokens"),
        # the wrong section
        ("training.rank", "it belongs in lora"),
        ("quantization", "it belongs in model"),
        ("training.packing", "it belongs in dataset"),
        ("lora.suspend", "it belongs in spec"),
        # nothing that is close, or several
        ("model.colour", "the fields here are uri, revision, tokenSecretRef"),
        ("lora.enabled", "it belongs in preflight"),
        ("training.name", "the fields here are epochs, maxSteps"),
    ],
)
def test_an_unknown_field_is_answered_with_the_right_one(path: str, answer: str) -> None:
    assert answer in suggestion.for_field(path.split("."))


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("kto", "KTO is not trained: write pairs of a better and a worse answer, for dpo (found 'kto')"),
        ("IPO", "write dpo, and dpo.lossType: ipo (found"),
        ("preference", "write dpo (found"),
        ("supervised", "write sft (found"),
    ],
)
def test_a_method_of_another_trainer_is_answered_with_what_to_use(method: str, answer: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec({**MINIMAL, "method": method})

    (only,) = refused.value.problems
    assert 'supported values: "sft", "dpo"' in str(only)
    assert answer in str(only)


def test_a_field_in_a_list_is_named_with_its_place() -> None:
    answer = problems("scheduling", {"tolerations": [{"key": "gpu", "operator": "Exists", "efect": "NoSchedule"}]})
    path = "spec.scheduling.tolerations[0].efect"
    assert answer == [f"{path}: unknown field \"{path}\"; it is called effect here (found 'NoSchedule')"]


@pytest.mark.parametrize(
    ("section", "settings", "answer"),
    [
        (
            "output",
            {"onExisting": "reuse"},
            'supported values: "Reuse", "Fail", "Replace"; write Reuse (found \'reuse\')',
        ),
        ("training", {"scheduler": "cosin"}, "write cosine (found 'cosin')"),
        ("training", {"optimizer": "adamw_bnb_8bit"}, "write adamw_8bit (found"),
        ("training", {"gradientCheckpointing": True}, 'must be of type string: "boolean"; write enabled (found True)'),
        ("model", {"quantization": {"type": "4bit"}}, "write nf4 (found '4bit')"),
        ("model", {"quantization": {"computeDtype": "bf16"}}, "write bfloat16 (found 'bf16')"),
        ("dataset", {"schema": "chat"}, "write messages (found 'chat')"),
        ("lora", {"variant": "vera"}, 'supported values: "lora", "rslora", "dora" (found'),
        ("output", {"merged": "yes"}, 'supported values: "none", "bf16" (found \'yes\')'),
    ],
)
def test_a_wrong_value_is_answered_with_the_close_one(section: str, settings: dict[str, Any], answer: str) -> None:
    (only,) = problems(section, settings)
    assert answer in only


@pytest.mark.parametrize(
    ("section", "settings", "answer"),
    [
        ("lora", {"rank": 0}, "spec.lora.rank: should be greater than or equal to 1 (found 0)"),
        ("lora", {"rank": 4096}, "should be less than or equal to 1024 (found 4096)"),
        (
            "lora",
            {"rank": "many"},
            "must be of type integer: \"string\"; write a whole number without quotes (found 'many')",
        ),
        (
            "lora",
            {"targetModules": "q_proj"},
            "must be of type array: \"string\"; write a list, for example [a, b] (found 'q_proj')",
        ),
        ("lora", {"targetModules": []}, "should have at least 1 items (found [])"),
        (
            "model",
            {"quantization": "nf4"},
            "must be of type object: \"string\"; write a section with fields of its own (found 'nf4')",
        ),
        (
            "model",
            {"trustRemoteCode": "perhaps"},
            "must be of type boolean: \"string\"; write true or false without quotes (found 'perhaps')",
        ),
    ],
)
def test_other_wrong_values_are_answered_with_a_remedy(section: str, settings: dict[str, Any], answer: str) -> None:
    assert answer in problems(section, settings)[0]


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    answer = problems("training", {"lr": 1, "scheduler": "cos", "epochs": 0, "learningRate": 2e-4})
    assert [line.partition(":")[0].rpartition(".")[2] for line in answer] == [
        "epochs",
        "learningRate",
        "scheduler",
        "lr",
    ]


def test_every_foreign_name_leads_to_an_existing_field_and_an_allowed_value() -> None:
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    values: set[str] = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            values.update(node.get("enum", ()))
            for inner in node.values():
                collect(inner)

    collect(schema)
    for word, path in foreign_words.FIELDS.items():
        field = schema
        for name in path.split("."):
            assert name in field["properties"], f"{word} leads to {path}, which is no field"
            field = field["properties"][name]
    assert {choice for choices in foreign_words.VALUES.values() for choice in choices} <= values
    assert set(foreign_words.DIFFERENT) <= set(foreign_words.FIELDS)
    assert not set(foreign_words.NEEDLESS) & set(foreign_words.FIELDS)
    plain = [re.sub("[-_]", "", word).lower() for word in (*foreign_words.FIELDS, *foreign_words.NEEDLESS)]
    assert len(plain) == len(set(plain))
