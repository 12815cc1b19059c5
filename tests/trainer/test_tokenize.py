"""Which tokens a row becomes and which of them are trained, seen by decoding them with a real tokenizer."""

from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import (
    Conversation,
    Message,
    Messages,
    PromptCompletion,
    RowLocation,
    SupervisedExample,
    Text,
)
from finetune_trainer.data.tokenization.tokenize import RowTokenizer, token_rows
from finetune_trainer.data.tokenization.tokens import TokenCounts, TokenRow

pytestmark = pytest.mark.trainer
PLACE = RowLocation(file="train.jsonl", line=7)


def _row(example: SupervisedExample, tokenizer: Any, loss: Loss = Loss.AUTO) -> TokenRow:
    return RowTokenizer(tokenizer, loss)(example)


def _trained(row: TokenRow, tokenizer: Any) -> str:
    text: str = tokenizer.decode([token for token, on in zip(row.ids, row.trained, strict=True) if on])
    return text


@pytest.mark.parametrize(
    "text", ["Water boils.", "<s>Water boils.", "\n<s>Water boils.", "<s>Water boils.</s>", "Water boils.</s>\n"]
)
def test_text_has_one_bos_and_one_eos_however_it_was_prepared(text: str, tokenizer: Any) -> None:
    row = _row(Text(place=PLACE, text=text), tokenizer)

    assert tokenizer.decode(row.ids) == "<s>Water boils.</s>"
    assert row.ids.count(tokenizer.bos_token_id) == row.ids.count(tokenizer.eos_token_id) == 1
    assert all(row.trained)


def test_blanks_at_the_end_of_a_text_are_the_texts_own(tokenizer: Any) -> None:
    assert tokenizer.decode(_row(Text(place=PLACE, text="a\n\n"), tokenizer).ids) == "<s>a\n\n</s>"


def test_prepared_llama_2_text_keeps_its_inner_turns(tokenizer: Any) -> None:
    text = "<s>[INST] a [/INST] b </s><s>[INST] c [/INST] d </s>"

    row = _row(Text(place=PLACE, text=text), tokenizer)

    assert tokenizer.decode(row.ids) == text
    assert row.ids[:2] != (tokenizer.bos_token_id,) * 2


def test_tokenizer_without_bos_gets_none(tokenizer: Any) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import ByteLevel
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.post_processor = ByteLevel(trim_offsets=False)
    plain = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")

    assert plain.decode(_row(Text(place=PLACE, text="Water"), plain).ids) == "Water</s>"
    assert plain.decode(_row(Text(place=PLACE, text="<s>Water"), plain).ids) == "<s>Water</s>"


@pytest.mark.parametrize("completion", [" Paris.", " Paris.</s>", " Paris.</s>\n"])
def test_completion_and_one_eos_are_trained(completion: str, tokenizer: Any) -> None:
    row = _row(PromptCompletion(place=PLACE, prompt="<s>Question: France? Answer:", completion=completion), tokenizer)

    assert tokenizer.decode(row.ids) == "<s>Question: France? Answer: Paris.</s>"
    assert _trained(row, tokenizer) == " Paris.</s>"


@pytest.mark.parametrize(("prompt", "completion"), [("Answer:", " Paris"), ("the lazy d", "og."), ("a ", " b")])
def test_prompt_keeps_the_tokens_that_a_server_will_send(prompt: str, completion: str, tokenizer: Any) -> None:
    row = _row(PromptCompletion(place=PLACE, prompt=prompt, completion=completion), tokenizer)

    served = tuple(tokenizer(prompt)["input_ids"])
    assert row.ids[: len(served)] == served
    assert row.trained == tuple(index >= len(served) for index in range(len(row.ids)))
    assert tokenizer.decode(row.ids) == f"<s>{prompt}{completion}</s>"


def test_loss_all_trains_the_prompt_too(tokenizer: Any) -> None:
    row = _row(PromptCompletion(place=PLACE, prompt="Answer:", completion=" Paris"), tokenizer, Loss.ALL)

    assert _trained(row, tokenizer) == "<s>Answer: Paris</s>"


@pytest.mark.parametrize("loss", [Loss.ASSISTANT, Loss.COMPLETION])
def test_text_has_no_part_to_train_alone(loss: Loss, tokenizer: Any) -> None:
    with pytest.raises(
        TrainerError, match=r"train\.jsonl:7: found .*dataset\.loss is .*use dataset\.loss: auto or all"
    ):
        _row(Text(place=PLACE, text="a"), tokenizer, loss)


def test_tokenizer_without_eos_is_refused(tiny_model: Any) -> None:
    from finetune_trainer.model.tokenizer import load_tokenizer

    endless = load_tokenizer(tiny_model)
    endless.eos_token = None

    with pytest.raises(TrainerError) as caught:
        _row(Text(place=PLACE, text="a"), endless)

    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_long_rows_are_cut_and_counted_and_rows_left_without_a_trained_token_are_dropped(tokenizer: Any) -> None:
    examples: list[SupervisedExample] = [
        Text(place=PLACE, text="Water boils at one hundred degrees"),
        PromptCompletion(place=PLACE, prompt="Question: What is the capital of France? Answer:", completion=" Paris."),
        Text(place=PLACE, text="Ice"),
    ]
    counts = TokenCounts()

    rows = list(token_rows(examples, tokenizer, loss=Loss.AUTO, max_length=6, counts=counts))

    whole = [_row(example, tokenizer) for example in examples]
    assert [row.ids for row in rows] == [whole[0].ids[:6], whole[2].ids[:6]]
    assert (counts.rows, counts.truncated, counts.dropped) == (2, 3 if len(whole[2].ids) > 6 else 2, 1)
    assert counts.longest == max(len(row.ids) for row in whole)
    assert counts.tokens == sum(len(row.ids) for row in rows)
    assert counts.trained_tokens == counts.tokens - len(rows), "the first token of a row has nothing before it"


def test_conversation_by_loss(tokenizer: Any) -> None:
    conversation = Conversation(
        place=PLACE,
        messages=Messages(
            (
                Message(role="user", content="hi"),
                Message(role="assistant", content="yo"),
                Message(role="user", content="bye"),
                Message(role="assistant", content="so long"),
            )
        ),
    )

    trained = {loss: _trained(_row(conversation, tokenizer, loss), tokenizer) for loss in Loss}

    assert trained[Loss.AUTO] == trained[Loss.ASSISTANT] == " yo </s> so long </s>"
    assert trained[Loss.COMPLETION] == " so long </s>"
    assert trained[Loss.ALL] == "<s>[INST] hi [/INST] yo </s>[INST] bye [/INST] so long </s>"
