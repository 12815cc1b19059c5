"""A chat template, compiled: messages in, text out, and where the template says that the assistant writes."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_trainer.data.examples import Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten
from finetune_trainer.data.reasoning import under_every_name
from finetune_trainer.data.templates.cpu_limit import CpuLimit, CpuTimeoutError

RENDER_SECONDS = 20
"""Processor time of one rendering: a conversation of a million tokens takes a second."""
_TOO_LONG = Fault(
    kind=ProblemKind.TEMPLATE,
    found="a conversation that the chat template does not end to render: it loops",
    expected="one that it renders",
    remedy="change the row, or set another dataset.chatTemplate",
)
_COMMENT_OR_MARK = re.compile(r"\{#.*?#\}|\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of the rendered text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: the text that is tokenised.
        marked: the parts inside `{% generation %}`, in order, apart from each other.
    """

    text: str
    marked: tuple[Span, ...] = ()


class ChatTemplate:
    """A template with the special tokens of one tokenizer.

    Args:
        source: the Jinja text.
        special_tokens: `bos_token`, `eos_token` and the like, as the template's variables.
        seconds: processor time of one rendering; after one that takes longer, all fail at once.

    Attributes:
        has_marks: whether it marks the assistant's part with `{% generation %}`.

    Raises:
        ValueError: the text does not compile; the message says where and why.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any], seconds: int = RENDER_SECONDS) -> None:
        # Jinja is for conversations; rows of text do without.
        from finetune_trainer.data.templates.sandbox import REFUSALS, Sandbox

        sandbox = Sandbox()
        self._compiled = sandbox.compiled(source)
        self.has_marks = sandbox.marked
        self._special_tokens = dict(special_tokens)
        self._refusals = REFUSALS
        self._seconds = seconds
        self._loops = False

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> Rendered:
        """Renders messages; `add_generation_prompt` ends the text with the generation prompt, as a server does.

        Raises:
            FaultError: the template refuses it.
        """
        if self._loops:
            raise FaultError(_TOO_LONG)
        tools = list(messages.tools) or None
        given = {
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._special_tokens,
        }
        refusal: Exception | None = None
        for turns in _forms(messages):
            try:
                with CpuLimit(self._seconds):
                    text = self._compiled.render(messages=turns, **given)
            except CpuTimeoutError:
                self._loops = True
                raise FaultError(_TOO_LONG) from None
            except self._refusals as error:
                refusal = refusal or error
            else:
                return _without_marks(text) if self.has_marks else Rendered(text)
        raise FaultError(
            Fault(
                kind=ProblemKind.TEMPLATE,
                found=f"a conversation that the chat template refuses: {shorten(str(refusal), 160)}",
                expected="one that it renders",
                remedy="change the row, or set another dataset.chatTemplate",
            )
        ) from refusal


def _forms(messages: Messages) -> Iterator[list[dict[str, Any]]]:
    """What a template is given, one form after the other until it takes one.

    Templates agree on everything but tool calls. What a turn of nothing but calls says is null for DeepSeek's and an
    empty text for Qwen-VL's; arguments are an object for most and JSON in a text for DeepSeek's.
    """
    turns = [
        under_every_name({"role": turn.role, "content": turn.content, **(turn.more or {})}) for turn in messages.turns
    ]
    yield turns
    if not any(turn.calls for turn in messages.turns):
        return
    spoken = [{**turn, "content": ""} if turn["content"] is None else turn for turn in turns]
    yield spoken
    for form in (turns, spoken):
        yield [
            {**turn, "tool_calls": list(map(_as_text, turn["tool_calls"]))} if "tool_calls" in turn else turn
            for turn in form
        ]


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def require_syntax(source: str) -> None:
    """Parses a template, and runs nothing of it: compiling already evaluates what is constant.

    Raises:
        ValueError: it does not parse; the message says where and why.
    """
    from finetune_trainer.data.templates.sandbox import Sandbox

    Sandbox().parsed(source)


def template_of(tokenizer_template: object) -> str | None:
    """A tokenizer's own template for plain conversations; None when it has none.

    Some have several by name; `default` is the one that a server takes without tools.
    """
    if isinstance(tokenizer_template, Mapping):
        tokenizer_template = tokenizer_template.get("default")
    return tokenizer_template if isinstance(tokenizer_template, str) and tokenizer_template else None


def for_servers(source: str) -> str:
    """The template with its `{% generation %}` marks as comments, for readers that do not know the tag.

    A comment keeps the dashes and Jinja trims around it as around a block, so the rendered text stays the same.
    """
    return _COMMENT_OR_MARK.sub(
        lambda match: f"{{#{match[1]} {match[2]} {match[3]}#}}" if match[2] else match[0], source
    )


def _without_marks(text: str) -> Rendered:
    """Takes the marks out of a rendered text; marks inside marks, and one that adjoins the last, join it."""
    from finetune_trainer.data.templates.sandbox import CLOSE, OPEN

    pieces: list[str] = []
    spans: list[Span] = []
    length = depth = start = 0
    for piece in re.split("(\0[()])", text):
        if piece == OPEN:
            start = start if depth else length
            depth += 1
        elif piece == CLOSE:
            depth -= 1
            if not depth:
                if spans and spans[-1].end == start:
                    start = spans.pop().start
                spans.append(Span(start, length))
        else:
            pieces.append(piece)
            length += len(piece)
    return Rendered("".join(pieces), tuple(spans))
