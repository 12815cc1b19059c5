"""Preflight's look at the chat template: the tokenizer's files without transformers, and the first rows."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.preflight_report import CheckResult, PreflightReport, Verdict
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.preflight import check_recipe
from finetune_trainer.storage.registry import StoreRegistry

from .tokenizers_made import tokenizer_json

pytestmark = pytest.mark.extras

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
TOKENIZER = tokenizer_json(special=("<|im_start|>", "<|im_end|>"), plain=("<think>",)).decode()


class Folder:
    """A model and its data on disk, and their preflight."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tensor = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        header = json.dumps(tensor).encode()
        self.model("config.json", {"model_type": "llama"})
        self.model("tokenizer.json", TOKENIZER)
        self.model("tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML})
        (folder / "model" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
        self.rows(TALK, TALK, TALK)

    def model(self, name: str, content: object) -> None:
        (self.folder / "model").mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / "model" / name).write_text(text)

    def rows(self, *rows: dict[str, Any]) -> None:
        (self.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def report(self, **dataset: Any) -> PreflightReport:
        recipe = Recipe.model_validate(
            {
                "job": {"name": "tiny"},
                "model": {"uri": f"file://{self.folder}/model"},
                "dataset": {"uri": f"file://{self.folder}/train.jsonl", **dataset},
                "output": {"uri": f"file://{self.folder}/out"},
            }
        )
        return check_recipe(recipe, StoreRegistry(recipe.storage, None))

    def template(self, **dataset: Any) -> CheckResult:
        report = self.report(**dataset)
        (found,) = [item for item in report.checks if item.name == "template"]
        assert report.passed == (found.verdict is not Verdict.FAILED)
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({}, "the model's own; 3 rows rendered"),
        ({"chatTemplate": "chatml"}, "chatml; 3 rows rendered"),
        ({"chatTemplate": CHATML, "loss": "all"}, "inline; 3 rows rendered"),
    ],
)
def test_sound_template(folder: Folder, dataset: dict[str, Any], message: str) -> None:
    found = folder.template(**dataset)

    assert (found.verdict, found.message) == (Verdict.PASSED, message)


def test_rows_that_are_no_conversations_need_no_template(folder: Folder) -> None:
    folder.rows({"text": "water"})
    folder.model("tokenizer_config.json", {})

    report = folder.report()

    assert report.passed
    assert "template" not in [item.name for item in report.checks]


@pytest.mark.parametrize("place", ["config", "named", "file", "file before config"])
def test_the_models_own_template_is_found_where_transformers_finds_it(folder: Folder, place: str) -> None:
    bad, config = "{{ raise_exception('never') }}", {"eos_token": "<|im_end|>"}
    if place == "config":
        folder.model("tokenizer_config.json", {**config, "chat_template": bad})
    elif place == "named":
        named = [{"name": "tool_use", "template": CHATML}, {"name": "default", "template": bad}]
        folder.model("tokenizer_config.json", {**config, "chat_template": named})
    else:
        folder.model("chat_template.jinja", bad)
        folder.model("tokenizer_config.json", {**config, "chat_template": CHATML} if "before" in place else config)

    # What a model's own template makes of a row is the row's matter: another model would take it.
    found = folder.template()
    assert found.reason is FailureReason.DATASET_INVALID
    assert "train.jsonl:1: found a conversation that the chat template refuses: never" in found.message


def test_model_without_a_template_is_refused_before_a_gpu(folder: Folder) -> None:
    folder.model("tokenizer_config.json", {"eos_token": "<|im_end|>"})

    found = folder.template()

    assert found.reason is FailureReason.MODEL_INVALID
    assert "set dataset.chatTemplate" in found.message
    assert folder.template(chatTemplate="chatml").verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "gemma",
            "gemma: the template writes <end_of_turn>, <start_of_turn>, which the model's tokenizer does not know",
        ),
        ("{% for m in messages %}", "inline: the template does not compile: line 1"),
        ("{{ messages | nosuch }}", "inline: the template does not compile: line 1: No filter named 'nosuch'"),
        ("{{ 'hello' }}", "leaves out what the user or the assistant says"),
        ("{{ 'a' | center(3000000000) }}", "took more than 20 seconds or 512 MiB"),
    ],
)
def test_template_that_cannot_be_used(folder: Folder, template: str, message: str) -> None:
    found = folder.template(chatTemplate=template)

    assert found.reason is FailureReason.INVALID_SPEC
    assert found.message.startswith("spec.dataset.chatTemplate: ")
    assert message in found.message
    assert not (folder.folder / "out").exists()


def test_syntax_is_looked_at_without_data_and_model(folder: Folder) -> None:
    (folder.folder / "train.jsonl").unlink()

    report = folder.report(chatTemplate="{% for m in messages %}")

    assert [item.name for item in report.checks if item.verdict is Verdict.FAILED] == ["storage.read", "template"]


def test_template_for_rows_that_are_no_conversations_is_refused(folder: Folder) -> None:
    folder.rows({"text": "water"})

    found = folder.template(chatTemplate="chatml")

    assert found.reason is FailureReason.INVALID_SPEC
    assert "the rows are no conversations" in found.message


@pytest.mark.parametrize("loss", ["assistant", "completion"])
def test_loss_of_a_part_that_running_text_does_not_have_is_refused(folder: Folder, loss: str) -> None:
    folder.rows({"text": "water"})

    (found,) = [item for item in folder.report(loss=loss).checks if item.verdict is Verdict.FAILED]

    assert (found.name, found.reason) == ("dataset", FailureReason.INVALID_SPEC)
    assert found.message.startswith(f"spec.dataset.loss: {loss}: the rows are running text")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "found no end-of-turn token after the assistant's text"),
        ("{% for m in messages %}{{ m.content | upper ~ eos_token }}{% endfor %}", "the chat template rewrites"),
        ("{% for m in messages %}{{ m.content ~ '<think>' }}{% endfor %}", "found no end-of-turn token"),
    ],
)
def test_what_would_go_wrong_in_every_row(folder: Folder, template: str, message: str) -> None:
    report = folder.report(chatTemplate=template)

    (found,) = [item for item in report.checks if item.name == "template"]
    assert found.reason is FailureReason.DATASET_INVALID
    assert "3 problems in the data (3 x chat template)" in found.message
    assert message in found.message
    assert [(problem.file, problem.line) for problem in report.problems] == [
        ("train.jsonl", line) for line in (1, 2, 3)
    ]


def test_row_that_the_template_refuses_has_its_place(folder: Folder) -> None:
    folder.model("tokenizer_config.json", {"eos_token": "</s>", "bos_token": "<s>"})
    turns = [{"role": "assistant", "content": "yo"}, {"role": "user", "content": "hi"}]
    folder.rows(TALK, {"messages": turns}, TALK)

    report = folder.report(chatTemplate="llama-2")

    (problem,) = report.problems
    assert (problem.file, problem.line) == ("train.jsonl", 2)
    assert "llama-2 takes a system message if any, then user and assistant by turns" in problem.found


def test_tokenizer_whose_files_name_no_special_tokens_is_not_judged(folder: Folder) -> None:
    folder.model("tokenizer_config.json", {"chat_template": CHATML})

    found = folder.template()

    assert found.verdict is Verdict.PASSED
    assert "not tried" in found.message


def test_special_tokens_of_the_older_files(folder: Folder) -> None:
    folder.model("tokenizer.json", tokenizer_json(special=()).decode())
    tokens = ({"content": "<|im_start|>", "special": True}, {"content": "<|im_end|>", "special": True})
    decoder = {str(number): token for number, token in enumerate(tokens, 256)}
    folder.model("tokenizer_config.json", {"added_tokens_decoder": decoder})
    folder.model("special_tokens_map.json", {"eos_token": "<|im_end|>"})

    assert folder.template(chatTemplate="chatml").message == "chatml; 3 rows rendered"


def test_many_rows(folder: Folder) -> None:
    folder.rows(*[TALK] * 2500)

    assert folder.template().message == "the model's own; 1,000 rows rendered"
