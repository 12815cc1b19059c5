"""Preflight counts the tokens that the training has: its tokenizer, without transformers, gives transformers' ids."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from finetune_trainer.contract.recipe import StorageSpec
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.examples import Conversation, Example, Message, Messages, PromptCompletion, RowLocation, Text
from finetune_trainer.data.problems import Findings
from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.data.templates.chat import for_servers
from finetune_trainer.data.templates.choose import use_chat_template
from finetune_trainer.data.tokenization.tokenize import RowTokenizer, token_rows
from finetune_trainer.data.tokenization.tokens import TokenCounts
from finetune_trainer.export.tokenizer import write_tokenizer
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.preflight.token_pass import TokenPass
from finetune_trainer.preflight.tokenizer import FileTokenizer, file_tokenizer
from finetune_trainer.preflight.tokenizer_files import tokenizer_facts
from finetune_trainer.storage.registry import StoreRegistry

from .families import FAMILIES, family_tokenizer, llama_2_tokenizer
from .running import recipe_of

pytestmark = pytest.mark.trainer
PLACE = RowLocation(file="train.jsonl", line=1)
PLACES = StoreRegistry(StorageSpec(), None)
TEXTS = (
    "Water boils at 100 degrees.",
    " <s>[INST] Name the capital. [/INST] Paris </s>",
    "<|im_start|>user\nhi<|im_end|> <|eot_id|><end_of_turn>",
    "e\u0301 日本語 👍 tab\t\r\n\n  ends  ",
    "x",
    "</s></s> a </s> b",
)


def small_tokenizer(folder: Path, chat_template: str | None = None) -> FileTokenizer:
    uri = parse_uri(f"file://{folder}")
    files = list(PLACES(uri).stat(uri))
    found = file_tokenizer(files, tokenizer_facts(files, PLACES), chat_template, PLACES)
    assert found is not None
    return found


def examples() -> list[Example]:
    dice = random.Random(0)
    words = " ".join(TEXTS).split(" ")

    def some(count: int) -> str:
        return " ".join(dice.choices(words, k=count)).strip() or "a"

    rows: list[Example] = [Text(place=PLACE, text=text) for text in TEXTS]
    rows += [PromptCompletion(place=PLACE, prompt=some(5), completion=some(n)) for n in range(1, 9)]
    for turns in range(1, 4):
        spoken = (Message(role=role, content=some(6)) for _ in range(turns) for role in ("user", "assistant"))
        rows.append(Conversation(place=PLACE, messages=Messages(tuple(spoken))))
    return rows


def assert_equal_rows(folder: Path, template: str | None) -> None:
    large = load_tokenizer(folder)
    use_chat_template(large, template)
    small = small_tokenizer(folder, template_source(template) if template else large.chat_template)
    for with_special in (True, False):
        options: dict[str, Any] = {"add_special_tokens": with_special, "return_offsets_mapping": True}
        for text in TEXTS:
            ours, theirs = small(text, **options), large(text, **options)
            assert list(ours["input_ids"]) == list(theirs["input_ids"]), text
            assert list(ours["offset_mapping"]) == list(theirs["offset_mapping"]), text
    for loss in (Loss.AUTO, Loss.ALL):
        rows = examples()
        assert RowTokenizer(small, loss).batch(rows) == RowTokenizer(large, loss).batch(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_with_built_in_templates(family: str, tiny_model: Path, tmp_path: Path) -> None:
    family_tokenizer(family, tiny_model).save_pretrained(tmp_path)
    assert_equal_rows(tmp_path, family)


def test_the_models_own_template(tiny_model: Path) -> None:
    assert_equal_rows(tiny_model, None)


@pytest.mark.parametrize("legacy", [True, False, None])
@pytest.mark.parametrize("name", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_llama_2s_kind_of_file(name: str, legacy: bool | None, tmp_path: Path) -> None:
    llama_2_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": name, "add_bos_token": True, "add_eos_token": False}
    config |= {} if legacy is None else {"legacy": legacy}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert_equal_rows(tmp_path, "llama-2")


@pytest.mark.parametrize(
    "changes",
    [
        {"add_bos_token": False},
        {"add_bos_token": True, "add_eos_token": True},
        {"added_tokens_decoder": {"352": {"content": "boils at", "special": False, "normalized": False}}},
        {"eos_token": "<|new_end|>"},
    ],
)
def test_what_the_config_changes(changes: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **changes}))
    assert_equal_rows(tmp_path, None)


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer"])
def test_the_ids_are_those_of_the_file_whatever_the_class(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """transformers 5 builds these classes anew, with a pre-tokenizer of their own."""
    inner = Tokenizer(models.BPE())
    inner.decoder = decoders.ByteLevel()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(["in 2023 and 650841823 and 12345"] * 5, trainer)
    inner.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": name, "bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    large, text = load_tokenizer(tmp_path), "650841823 in 2023"

    assert large(text, add_special_tokens=False)["input_ids"] == inner.encode(text, add_special_tokens=False).ids
    small = small_tokenizer(tmp_path)
    assert small(text, add_special_tokens=False)["input_ids"] == inner.encode(text, add_special_tokens=False).ids


def test_the_written_tokenizer_has_the_base_models_files(tiny_model: Path, tmp_path: Path) -> None:
    """So it loads where the base model's does: with its class and its names of special tokens."""
    base, written = tmp_path / "base", tmp_path / "written"
    shutil.copytree(tiny_model, base)
    written.mkdir()
    config = json.loads((base / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "LlamaTokenizerFast", "additional_special_tokens": ["<|x|>"], "chat_template": "old"}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    (base / "special_tokens_map.json").write_text("{}")
    tokenizer = load_tokenizer(base)
    use_chat_template(tokenizer, "llama-2")

    write_tokenizer(tokenizer, written)

    assert (written / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    del config["chat_template"]
    assert json.loads((written / "tokenizer_config.json").read_text()) == config
    assert (written / "special_tokens_map.json").read_text() == "{}"
    assert load_tokenizer(written).chat_template == for_servers(template_source("llama-2"))


def test_a_length_set_in_the_file_cuts_nothing(tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stated = json.loads((tmp_path / "tokenizer.json").read_text())
    stated["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stated))
    assert_equal_rows(tmp_path, None)


def test_what_preflight_counts_is_what_the_trainer_counts(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    rows = examples() * 3
    recipe = recipe_of(
        tiny_model,
        tmp_path / "t.jsonl",
        tmp_path / "out",
        dataset={"maxLength": 24},
        training={"maxSteps": None, "epochs": 2, "batchSize": 4},
    )
    counts = TokenCounts()
    kept = list(token_rows(rows, tokenizer, loss=Loss.AUTO, max_length=24, counts=counts))
    counted = TokenPass(recipe, small_tokenizer(tiny_model, tokenizer.chat_template), Findings())
    for row in rows:
        counted.take(row, counted.next_weight())
    found = counted.statistics()
    assert min(found.truncated, found.dropped) > 0, "the test is about them too"
    assert (found.rows, found.sampled_rows) == (len(rows), len(rows))
    assert (found.tokens, found.trained_tokens) == (counts.tokens, counts.trained_tokens)
    assert (found.truncated, found.dropped, found.longest) == (counts.truncated, counts.dropped, counts.longest)
    assert found.steps == 2 * -(-len(kept) // 4)
    assert sum(bucket.rows for bucket in found.histogram) == len(rows)


def test_a_sample_comes_close(tiny_model: Path, tokenizer: Any, tmp_path: Path) -> None:
    dice = random.Random(1)
    rows = [Text(place=PLACE, text="word " * dice.randint(1, 80)) for _ in range(4000)]
    recipe = recipe_of(tiny_model, tmp_path / "t.jsonl", tmp_path / "out", dataset={"maxLength": 64})
    counts = TokenCounts()
    list(token_rows(rows, tokenizer, loss=Loss.AUTO, max_length=64, counts=counts))
    counted = TokenPass(recipe, small_tokenizer(tiny_model), Findings(), level_characters=80_000)
    for row in rows:
        if weight := counted.next_weight():
            counted.take(row, weight)
    found = counted.statistics()
    assert found.rows == len(rows)
    assert found.sampled_rows < 1500
    assert found.tokens == pytest.approx(counts.tokens, rel=0.05)
    assert found.truncated == pytest.approx(counts.truncated, rel=0.1)
