"""What an assistant thinks before it answers: under a key of the turn, or as `<think>…</think>` before the answer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from finetune_trainer.data.examples import Message

KEY: Final = "reasoning_content"
NAMES: Final = (KEY, "reasoning", "thinking")
"""The keys of it: vLLM's and DeepSeek's, OpenRouter's and newer vLLM's, gpt-oss's and Ollama's."""
_OPEN, _CLOSE = "<think>", "</think>"


def reasoning_of(turn: Message) -> str:
    """What stands under the key; empty where nothing does."""
    reasoning: str = (turn.more or {}).get(KEY) or ""
    return reasoning


def with_reasoning(turn: Message, text: str | None) -> Message:
    """The turn with another text under the key, or with none."""
    more: dict[str, Any] = {key: value for key, value in (turn.more or {}).items() if key != KEY}
    if text is not None:
        more[KEY] = text
    return replace(turn, more=more or None)


def under_every_name(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn as templates are given it: each of them knows the reasoning by a name of its own."""
    return {**turn, **(dict.fromkeys(NAMES, turn[KEY]) if KEY in turn else {})}


def divided(content: str) -> tuple[str, str, str]:
    """A content that begins with `<think>…</think>`: up to its end, what is inside, what follows; else "", "", content.

    Many templates look for it, write it anew with other blanks, or leave it out of turns before the last.
    """
    head, close, answer = content.rpartition(_CLOSE)
    if not close or not head.lstrip().startswith(_OPEN):
        return "", "", content
    return head + close, head.lstrip().removeprefix(_OPEN).strip(), answer
