"""Conversations to tokens with the model's own chat template, and which tokens the assistant wrote.

The ids are those of `apply_chat_template`: what is trained is what a server will render. Where the template marks the
assistant's part with `{% generation %}`, the marks decide. Few do; otherwise the part is found by rendering the
conversation once more with placeholders in place of the assistant's texts: what stands around them is the template's
own writing. The end-of-turn token after each assistant text is trained too, because a model that never saw it trained
never stops.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.data.example import Conversation, Message
from finetune_trainer.data.tokens import Tokenizer, TokenRow

_PLACEHOLDER = "FINETUNEPLACEHOLDER{}X"
_GENERATION_MARK = re.compile(r"{%-?\s*generation\s*-?%}")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of the rendered text."""

    start: int
    end: int


def conversation_row(conversation: Conversation, tokenizer: Tokenizer, *, only_last: bool = False) -> TokenRow:
    """Renders and tokenises a conversation; the assistant's turns with their end tokens are marked as trained.

    Args:
        conversation: the messages.
        tokenizer: the model's tokenizer with its chat template.
        only_last: mark only the last assistant turn.

    Raises:
        TrainerError: the model has no chat template, it refuses these messages, or its assistant turns cannot be
            told apart with certainty.
    """
    text = render(conversation, conversation.messages, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = tuple(encoded["input_ids"]), [Span(*pair) for pair in encoded["offset_mapping"]]
    if isinstance(tokenizer.chat_template, str) and _GENERATION_MARK.search(tokenizer.chat_template):
        spans = marked_spans(conversation, ids, offsets, tokenizer)
    else:
        spans = assistant_spans(conversation, text, tokenizer)
    special = _special_ids(tokenizer)
    trained = [False] * len(ids)
    for span in spans[-1:] if only_last else spans:
        _mark(conversation, text, ids, offsets, span, special, trained)
    return TokenRow(ids=ids, trained=tuple(trained))


def whole_conversation_row(conversation: Conversation, tokenizer: Tokenizer) -> TokenRow:
    """Renders and tokenises a conversation; every token is trained.

    Raises:
        TrainerError: the model has no chat template, or it refuses these messages.
    """
    text = render(conversation, conversation.messages, tokenizer)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return TokenRow(ids=ids, trained=(True,) * len(ids))


def render(
    conversation: Conversation, messages: Sequence[Message], tokenizer: Tokenizer, *, asking: bool = False
) -> str:
    """The chat template's text for `messages`; `asking` ends it with the generation prompt, as a server does.

    Raises:
        TrainerError: the model has no chat template, or it refuses these messages.
    """
    if not tokenizer.chat_template:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            "the dataset has messages, but the model has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); use the instruct model of the family, or rows of prompt and completion",
        )
    # jinja2 comes with transformers; its errors are the template's way of refusing a conversation.
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            tokenize=False,
            add_generation_prompt=asking,
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise _refuse(conversation, f"the model's chat template refuses this conversation: {error}") from error
    return text


def marked_spans(
    conversation: Conversation, ids: Sequence[int], offsets: Sequence[Span], tokenizer: Tokenizer
) -> list[Span]:
    """Where in the rendered text the parts are that the template itself marks as the assistant's."""
    encoded = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in conversation.messages],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    if list(encoded["input_ids"]) != list(ids):
        raise _uncertain(conversation)
    mask = encoded["assistant_masks"]
    starts = [index for index, on in enumerate(mask) if on and not (index and mask[index - 1])]
    ends = [index for index, on in enumerate(mask) if on and not (index + 1 < len(mask) and mask[index + 1])]
    return [Span(offsets[first].start, offsets[last].end) for first, last in zip(starts, ends, strict=True)]


def assistant_spans(conversation: Conversation, text: str, tokenizer: Tokenizer) -> list[Span]:
    """Where in the rendered `text` each assistant's part stands: from the end of the prompt to the content's end.

    Raises:
        TrainerError: the template changes what is around the content depending on the content, so that the place
            is not certain.
    """
    turns = [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]
    marked = list(conversation.messages)
    for number, index in enumerate(turns):
        marked[index] = Message(role="assistant", content=_PLACEHOLDER.format(number))
    skeleton = render(conversation, marked, tokenizer)
    spans: list[Span] = []
    position = 0
    for number, index in enumerate(turns):
        before, found, skeleton = skeleton.partition(_PLACEHOLDER.format(number))
        content = conversation.messages[index].content
        start = position + len(before)
        if not found or text[position:start] != before:
            raise _uncertain(conversation)
        written = next((form for form in (content, content.strip()) if text.startswith(form, start)), None)
        if written is None:
            raise _uncertain(conversation)
        asked = _end_of_prompt(conversation, index, text, tokenizer)
        spans.append(Span(asked if asked is not None and position <= asked <= start else start, start + len(written)))
        position = start + len(written)
    if text[position:] != skeleton:
        raise _uncertain(conversation)
    return spans


def _end_of_prompt(conversation: Conversation, index: int, text: str, tokenizer: Tokenizer) -> int | None:
    """Where in `text` the prompt ends that a server would send for message `index`; the model writes what follows.

    It may begin with a blank (Llama-2) or an empty <think> block (Qwen) before the content. None where the template
    writes the beginning of the conversation otherwise once it goes on.
    """
    try:
        prompt = render(conversation, conversation.messages[:index], tokenizer, asking=True)
    except TrainerError:
        return None
    return len(prompt) if text.startswith(prompt) else None


def _mark(
    conversation: Conversation,
    text: str,
    ids: Sequence[int],
    offsets: Sequence[Span],
    span: Span,
    special: frozenset[int],
    trained: list[bool],
) -> None:
    """Marks the tokens of one assistant text and the end-of-turn token that follows it."""
    ended = False
    for index, (token, place) in enumerate(zip(ids, offsets, strict=True)):
        if place.end <= span.start:
            continue
        if place.start < span.end:
            # A token may begin before the content when only the blank that belongs to it stands there ("▁Paris").
            # Where it holds part of the template's own writing, a server would never ask the model for it.
            trained[index] = place.start >= span.start or not text[place.start : span.start].strip()
            ended = token in special
        elif ended:
            return
        elif token in special:
            trained[index] = True
            return
        elif text[place.start : place.end].strip():
            break
        else:
            trained[index] = True
    if ended:
        return
    raise _refuse(
        conversation,
        "the model's chat template writes no end-of-turn token after the assistant's text: a model trained with it "
        "would never stop; use another chat template, or rows of prompt and completion",
    )


def _special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids that never come from running text: the named special tokens and added ones such as <|im_end|>."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _uncertain(conversation: Conversation) -> TrainerError:
    return _refuse(
        conversation,
        "the model's chat template rewrites the assistant's text, so which tokens are the assistant's is not certain; "
        "use dataset.loss: all, another chat template, or rows of prompt and completion",
    )


def _refuse(conversation: Conversation, what: str) -> TrainerError:
    place = conversation.place
    return TrainerError(FailureReason.DATASET_INVALID, f"{place.file}:{place.line}: {what}")
