"""Reasoning before an answer, blanks around it, ends of two tokens: what is trained of a turn besides plain text."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Conversation, Message, Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.tokenization.loss_mask import LossMask
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.trainer
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|return|>", "<|channel|>", "<|message|>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    *("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001 (DeepSeek's bars)
)
USER = Message(role="user", content="2+2?")
LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


def makers(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def trained(source: str, *turns: Message, loss: Loss = Loss.AUTO) -> list[str]:
    text, spans = LossMask(ChatTemplate(source, TOKENS), SPECIAL, loss)(Messages(turns))
    return [text[span.start : span.end] for span in spans]


def said(content: str, reasoning: str | None = None, *, weight: int = 1) -> Message:
    more = {"reasoning_content": reasoning} if reasoning else None
    return Message(role="assistant", content=content, more=more, trained=bool(weight))


WRITTEN = {
    "qwen3": "<think>\nsum\n</think>\n\n4<|im_end|>",
    "qwen3_5_think": "sum\n</think>\n\n4<|im_end|>",
    "qwen3_5_nothink": "sum\n</think>\n\n4<|im_end|>",
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    "answer",
    [
        said("4", "sum"),
        said("<think>\nsum\n</think>\n\n4"),
        said("<think>sum</think>4"),
        said("\n<think>\nsum</think>4"),
    ],
)
def test_reasoning_is_trained_wherever_it_stands_in_the_data(name: str, answer: Message) -> None:
    assert [part.replace(" ", "") for part in trained(makers(name), USER, answer)] == [WRITTEN[name]]


def test_a_template_takes_the_reasoning_under_the_name_that_it_knows() -> None:
    final = "<|start|>assistant<|channel|>final<|message|>4<|return|>"
    assert trained(makers("gptoss"), USER, said("4", "sum")) == [f"<|channel|>analysis<|message|>sum<|end|>{final}"]


@pytest.mark.parametrize("first", [said("4", "sum"), said("<think>\nsum\n</think>\n\n4")])
@pytest.mark.parametrize("name", WRITTEN)
def test_no_turn_is_trained_to_answer_without_its_reasoning(name: str, first: Message) -> None:
    """Templates leave it out before the last question. A server does so too: as a context, the turn is right."""
    last = said("5", "sum")
    with pytest.raises(FaultError, match="the assistant's reasoning") as caught:
        trained(makers(name), USER, first, USER, last)
    assert "dataset.loss: completion, or a weight of 0" in caught.value.fault.remedy
    fixed = [WRITTEN[name].replace("4", "5")]
    assert trained(makers(name), USER, first, USER, last, loss=Loss.COMPLETION) == fixed
    unweighted = said(first.content or "", (first.more or {}).get("reasoning_content"), weight=0)
    assert trained(makers(name), USER, unweighted, USER, last) == fixed


def test_a_template_that_leaves_think_blocks_out_is_told_so() -> None:
    with pytest.raises(FaultError, match="the assistant's reasoning, which the chat template leaves out"):
        trained(makers("deepseekv3"), USER, said("<think>sum</think>4"))


@pytest.mark.parametrize("content", ["4", "4 ", " 4", "4\n", "\n4\n\n", " \n4 \n"])
def test_blanks_around_an_answer_are_the_templates_matter(content: str) -> None:
    assert trained(LLAMA_2, USER, said(content), USER, said(content)) == [" 4 </s>"] * 2
    whole = f"{content}<|im_end|>"
    assert trained(makers("qwen2_5"), USER, said(content), USER, said(content)) == [whole] * 2
    last = content.lstrip("\n")
    assert trained(makers("qwen3"), USER, said(content)) == [f"<think>\n\n</think>\n\n{last}<|im_end|>"]


def test_all_tokens_that_end_a_turn_are_trained() -> None:
    ended = "4<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    assert trained(makers("cohere2"), USER, said("4"), USER, said("4")) == [ended] * 2


def read(path: Path, *turns: dict[str, Any]) -> Messages:
    path.write_text(json.dumps({"messages": turns}) + "\n")
    dataset, stores = DatasetSpec(uri=f"file://{path}"), StoreRegistry(StorageSpec(), None)
    [example] = read_examples(dataset, dataset_objects(dataset, stores), stores)
    assert isinstance(example, Conversation)
    return example.messages


def test_the_reasoning_of_a_row_has_several_names(tmp_path: Path) -> None:
    asked, answer = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
    conversations = [read(tmp_path / "d.jsonl", asked, answer | {name: "sum"}) for name in ("reasoning", "thinking")]
    assert (
        conversations
        == [read(tmp_path / "d.jsonl", asked, answer | {"reasoning_content": "sum", "reasoning": "sum"})] * 2
    )
    with pytest.raises(TrainerError, match=r"messages\[1\]\.thinking: found another text than under reasoning,"):
        read(tmp_path / "d.jsonl", asked, answer | {"reasoning": "sum", "thinking": "guess"})
