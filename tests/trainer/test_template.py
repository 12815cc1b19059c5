"""The assistant's tokens under models' own templates of several kinds, written here for the test."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
from finetune_trainer.data.tokenization.tokenize import RowTokenizer
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.model.tokenizer import load_tokenizer

pytestmark = pytest.mark.trainer
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|eot|>", "<|head|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRIMMING = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|head|>' + m['role'] + '<|head|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|head|>\n\n' }}{% endif %}"
)
EOS_AT_THE_END = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}{{ eos_token }}"
)
THINKING = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'].split('</think>')[-1] + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ m['content'] | upper + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED_WITHOUT_END = MARKED.replace(" + '<|im_end|>' }}{% endgeneration %}", " }}{% endgeneration %}{{ '<|im_end|>' }}")
ENDLESS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
REWRITING = CHATML.replace("m['content']", "m['content'] | replace('a', 'o')")
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] + eos_token }}{% endfor %}"
)


def _conversation(*contents: str, first: str = "user") -> Conversation:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    messages = tuple(Message(role=roles[index % 2], content=content) for index, content in enumerate(contents))
    return Conversation(place=RowLocation(file="chat.jsonl", line=3), messages=Messages(messages))


def conversation_row(conversation: Conversation, tokenizer: Any) -> TokenRow:
    return RowTokenizer(tokenizer, Loss.AUTO)(conversation)


@pytest.fixture
def with_template(tiny_model: Path) -> Any:
    def make(template: str | None) -> Any:
        tokenizer = load_tokenizer(tiny_model)
        tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.mark.parametrize(
    ("template", "trained"),
    [
        (CHATML, "yo man<|im_end|>so long<|im_end|>"),
        (TRIMMING, "yo man<|eot|>so long<|eot|>"),
        (EOS_AT_THE_END, "yo man<|end|>so long<|end|>"),
        (THINKING, "yo man<|im_end|><think>\n\n</think>\n\nso long<|im_end|>"),
        (MARKED, "YO MAN<|im_end|>SO LONG<|im_end|>"),
        (MARKED_WITHOUT_END, "YO MAN<|im_end|>SO LONG<|im_end|>"),
    ],
)
def test_assistant_turns_and_their_end_tokens_are_trained(template: str, trained: str, with_template: Any) -> None:
    tokenizer, conversation = with_template(template), _conversation("hi", "yo man", "bye", "so long")

    row = conversation_row(conversation, tokenizer)

    messages = [{"role": message.role, "content": message.content} for message in conversation.messages.turns]
    assert list(row.ids) == tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    assert tokenizer.decode([token for token, on in zip(row.ids, row.trained, strict=True) if on]) == trained


def test_text_that_stands_twice_is_trained_where_the_assistant_says_it(with_template: Any) -> None:
    tokenizer = with_template(CHATML)

    row = conversation_row(_conversation("yes", "yes", "assistant", "assistant"), tokenizer)

    # Everything up to the assistant's content is context, the user's very same words too.
    runs = "".join("x" if on else "." for on in row.trained)
    assert runs.count(".x") == 2
    assert tokenizer.decode([t for t, on in zip(row.ids, row.trained, strict=True) if on]) == (
        "yes<|im_end|>assistant<|im_end|>"
    )


def test_empty_assistant_turn_trains_its_end_token(with_template: Any) -> None:
    tokenizer = with_template(CHATML)

    row = conversation_row(_conversation("hi", ""), tokenizer)

    assert tokenizer.decode([t for t, on in zip(row.ids, row.trained, strict=True) if on]) == "<|im_end|>"


@pytest.mark.parametrize(
    ("before", "content", "trained"),
    [
        # "Ġdo" and "g" are tokens. Only the blank of the first one is the template's: the model writes it.
        ("the lazy ", "dog", " dog</s>"),
        # Here it holds a letter of the template, and no server would ask for it.
        ("the lazy d", "og", "g</s>"),
    ],
)
def test_token_that_begins_before_the_content(before: str, content: str, trained: str, with_template: Any) -> None:
    tokenizer = with_template(
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '" + before + "' ~ m.content ~ eos_token }}"
        "{% else %}{{ m.content ~ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + before + "' }}{% endif %}"
    )

    row = conversation_row(_conversation("hi", content), tokenizer)

    assert tokenizer.decode([t for t, on in zip(row.ids, row.trained, strict=True) if on]) == trained


def test_the_prompts_think_tag_is_not_trained_where_the_answer_has_it(with_template: Any) -> None:
    """A server's prompt ends with <think>: the model writes what follows. An answer without the tag is its own."""
    tokenizer = with_template(CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}"))

    row = conversation_row(_conversation("hi", "yo", "bye", "<think>\nhm\n</think>\n\nso long", "ok", "yes"), tokenizer)

    assert tokenizer.decode([t for t, on in zip(row.ids, row.trained, strict=True) if on]) == (
        "yo<|im_end|>hm\n</think>\n\nso long<|im_end|>yes<|im_end|>"
    )


HEADERS_ONLY = (
    "{% for m in messages %}{{ '<|' ~ ('end' if m.role == 'user' else 'eot') ~ '|>' ~ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        # The next header is no end of turn: GLM Edge writes the prompt whatever it is asked.
        (HEADERS_ONLY + "{{ '<|eot|>' }}", "found no end-of-turn token"),
        (ENDLESS, "found no end-of-turn token.*write {{ eos_token }} there"),
        (REWRITING, "found an assistant's text that the chat template rewrites"),
        (ALTERNATING, "the chat template refuses: roles must alternate"),
    ],
)
def test_uncertain_template_is_refused_with_the_rows_place(template: str, message: str, with_template: Any) -> None:
    with pytest.raises(TrainerError, match=message) as caught:
        conversation_row(_conversation("hi", "yo man", first="assistant" if template == ALTERNATING else "user"),
                         with_template(template))  # fmt: skip

    assert caught.value.message.startswith("chat.jsonl:3: ")


def test_model_without_template_is_refused_with_the_remedy(with_template: Any) -> None:
    with pytest.raises(TrainerError, match=r"no chat template.*set dataset.chatTemplate"):
        conversation_row(_conversation("hi", "yo"), with_template(None))
