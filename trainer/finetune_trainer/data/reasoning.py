"""The assistant's reasoning: under a key of the turn, or as `<think>…</think>` before the answer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from finetune_trainer.data.examples import Message

KEY: Final = "reasoning_content"
NAMES: Final = (KEY, "reasoning", "thinking")
"""The keys of the reasoning: that of vLLM and DeepSeek, of OpenRouter and newer vLLM, of gpt-oss and Ollama."""
_OPEN, _CLOSE = "<think>", "</think>"


def reasoning_of(turn: Message) -> str:
    """The reasoning under the turn's key; empty when there is none."""
    reasoning: str = (turn.more or {}).get(KEY) or ""
    return reasoning


def with_reasoning(turn: Message, text: str | None) -> Message:
    """The turn with `text` as its reasoning; None removes the reasoning."""
    more: dict[str, Any] = {key: value for key, value in (turn.more or {}).items() if key != KEY}
    if text is not None:
        more[KEY] = text
    return replace(turn, more=more or None)


def under_every_name(turn: Mapping[str, Any]) -> dict[str, Any]:
    """The turn with its reasoning under all of `NAMES`, because each template reads another one."""
    return {**turn, **(dict.fromkeys(NAMES, turn[KEY]) if KEY in turn else {})}


def split_reasoning(content: str) -> tuple[str, str, str]:
    """Splits a content that begins with `<think>…</think>` into its head, the reasoning and the answer.

    The head is the text up to and with `</think>`. For any other content the result is "", "", content. Many templates
    look for these tags: they write the reasoning with other blanks, or leave it out of all turns but the last.
    """
    head, close, answer = content.rpartition(_CLOSE)
    if not close or not head.lstrip().startswith(_OPEN):
        return "", "", content
    return head + close, head.lstrip().removeprefix(_OPEN).strip(), answer
