"""Ids and masks of conversations against those that the makers' own code gives with the real vocabularies.

Each file in golden/ names its source. Its tokenizer is the family's, less the tokens that stand in none of the texts,
and with the real ids. A `text` row of the same conversation has the same ids.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation, Text
from finetune_trainer.data.templates.choose import use_chat_template
from finetune_trainer.data.tokenization.tokenize import RowTokenizer
from finetune_trainer.model.tokenizer import load_tokenizer

pytestmark = pytest.mark.trainer
GOLDEN = Path(__file__).parent / "golden"
PLACE = RowLocation(file="chat.jsonl", line=1)


@pytest.fixture
def golden(tmp_path: Path) -> Any:
    def load(family: str) -> tuple[Any, list[dict[str, Any]]]:
        """The family's tokenizer with its chat template, and the rows."""
        known = json.loads((GOLDEN / f"{family}.json").read_text(encoding="utf-8"))
        (tmp_path / "tokenizer.json").write_text(json.dumps(known["tokenizer"]))
        config = {name: known[name] for name in ("bos_token", "eos_token") if known[name]}
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | config)
        )
        tokenizer = load_tokenizer(tmp_path)
        if known["template"].startswith("trl:"):
            name = known["template"].removeprefix("trl:")
            tokenizer.chat_template = (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
        else:
            use_chat_template(tokenizer, known["template"])
        return tokenizer, known["rows"]

    return load


def conversation(row: dict[str, Any]) -> Conversation:
    return Conversation(place=PLACE, messages=Messages(tuple(Message(**turn) for turn in row["messages"])))


@pytest.mark.parametrize("family", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_ids_and_masks_are_those_of_the_makers_code(family: str, golden: Any) -> None:
    tokenizer, rows = golden(family)

    for row in rows:
        got = RowTokenizer(tokenizer, Loss.AUTO)(conversation(row))
        assert list(got.ids) == row["ids"]
        assert list(got.trained) == row["trained"]


def test_llama_2_begins_as_in_metas_code_and_text_rows_have_the_same_ids(golden: Any) -> None:
    tokenizer, rows = golden("llama-2")

    for row in rows:
        assert row["ids"][:3] == [1, 518, 25580]
        turns = [turn["content"] for turn in row["messages"]]
        if row["messages"][0]["role"] == "system":
            turns[:2] = [f"<<SYS>>\n{turns[0]}\n<</SYS>>\n\n{turns[1]}"]
        pairs = zip(turns[::2], turns[1::2], strict=True)
        text = "".join(f"<s>[INST] {asked} [/INST] {said} </s>" for asked, said in pairs)
        assert list(RowTokenizer(tokenizer, Loss.AUTO)(Text(place=PLACE, text=text)).ids) == row["ids"]
