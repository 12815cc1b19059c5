"""Checks a template with a plain conversation, before any row or weight is read.

No library reports a special token that the tokenizer does not know. The tokenizer splits it into letters, and the model
is trained on an end of turn at which no server stops. So the template renders a conversation, and every text in it that
looks like a special token must be one.
"""

import re
from collections.abc import Collection

from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.chat import ChatTemplate

# U+FF5C is the bar in DeepSeek's tokens.
_LOOKS_SPECIAL = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|<\uff5c[^\s<>]{1,40}\uff5c>|<(?:start|end)_of_turn>|</?s>|<(?:bos|eos)>"
)
_ASKED, _SAID = "asked7", "said8"
_SYSTEM, _USER = Message(role="system", content="rule5"), Message(role="user", content=_ASKED)
_ASSISTANT = Message(role="assistant", content=_SAID)
_CONVERSATIONS = (
    (_SYSTEM, _USER, _ASSISTANT, _USER, _ASSISTANT),
    (_USER, _ASSISTANT, _USER, _ASSISTANT),
    (_USER, _ASSISTANT),
    (_SYSTEM, _USER, _ASSISTANT),
)
"""The conversations to try. The first one that the template accepts is checked."""


def template_problem(template: ChatTemplate, known: Collection[str]) -> str | None:
    """The problem of a template that does not depend on the rows, or None.

    The text is the end of a sentence that begins with the template.

    Args:
        template: the chat template.
        known: the texts of tokens that the model's tokenizer never splits.
    """
    try:
        text = _first_rendered(template)
    except FaultError as error:
        return f"has {error.fault.found}, though it was only a user's turn and an assistant's"
    plain = text.casefold()
    if _ASKED not in plain or _SAID not in plain:
        return "leaves out what the user or the assistant says; write {% for message in messages %} and its content"
    if unknown := sorted(set(_LOOKS_SPECIAL.findall(text)) - set(known)):
        return (
            f"writes {', '.join(unknown[:8])}, which the model's tokenizer does not know as special tokens and would "
            "split into letters; use the template of the model's family, or leave the field out"
        )
    return None


def _first_rendered(template: ChatTemplate) -> str:
    refusal: FaultError | None = None
    for conversation in _CONVERSATIONS:
        try:
            return _rendered(template, conversation)
        except FaultError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _rendered(template: ChatTemplate, conversation: tuple[Message, ...]) -> str:
    return (
        template.render(Messages(conversation)).text
        + template.render(Messages(conversation[:-1]), add_generation_prompt=True).text
    )
