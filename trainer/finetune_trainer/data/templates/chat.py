"""A compiled chat template: it renders messages to text and finds the parts marked as the assistant's."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from finetune_trainer.data.examples import Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten
from finetune_trainer.data.reasoning import under_every_name
from finetune_trainer.data.templates.cpu_limit import CpuLimit, CpuTimeoutError

RENDER_SECONDS = 20
"""Largest processor time of one rendering, in seconds. A conversation of a million tokens takes one second."""
_TOO_LONG = Fault(
    kind=ProblemKind.TEMPLATE,
    found="a conversation that the chat template never finishes: it loops",
    expected="one that it renders",
    remedy="change the row, or set another dataset.chatTemplate",
)
_COMMENT_OR_MARK = re.compile(r"\{#.*?#\}|\{%([-+]?)\s*((?:end)?generation)\s*([-+]?)%\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """The characters from `start` to `end` (exclusive) of a rendered text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered conversation.

    Attributes:
        text: the text that is tokenised.
        marked: the parts inside `{% generation %}`, in order. No two of them touch.
    """

    text: str
    marked: tuple[Span, ...] = ()


class ChatTemplate:
    """A compiled template with the special tokens of one tokenizer.

    Args:
        source: the Jinja text.
        special_tokens: the template's variables for special tokens: `bos_token`, `eos_token` and others.
        seconds: largest processor time of one rendering. After one rendering has taken longer, every further one fails
            immediately.

    Attributes:
        has_marks: whether it marks the assistant's part with `{% generation %}`.
        loops: whether a rendering has taken too long.

    Raises:
        ValueError: the text does not compile; the message says where and why.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, Any], seconds: int = RENDER_SECONDS) -> None:
        # Imported late: rows of text need no Jinja.
        from finetune_trainer.data.templates.sandbox import REFUSALS, Sandbox

        sandbox = Sandbox()
        self._compiled = sandbox.compiled(source)
        self.has_marks = sandbox.marked
        self._special_tokens = dict(special_tokens)
        self._refusals = REFUSALS
        self._seconds = seconds
        self.loops = False

    def special_token(self, name: str) -> str:
        """The text of a special token by the name that templates know (`bos_token`); empty where there is none."""
        return str(self._special_tokens.get(name) or "")

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> Rendered:
        """Renders messages.

        Args:
            messages: the turns and the tools.
            add_generation_prompt: whether the text ends with the generation prompt, as a server's does.

        Raises:
            FaultError: the template refuses the messages, or takes too long.
        """
        if self.loops:
            raise FaultError(_TOO_LONG)
        tools = list(messages.tools) or None
        refusal: Exception | None = None
        for forms in _forms(messages, self.roles_in_parts):
            text: str | None = None
            for turns in forms:
                try:
                    written = self._written(turns, tools=tools, add_generation_prompt=add_generation_prompt)
                except self._refusals as error:
                    refusal = refusal or error
                    continue
                if text is None or _nulls(written) < _nulls(text):
                    text = written
                if turns is not forms[-1] and not _nulls(text):
                    break
            if text is not None:
                return _without_marks(text) if self.has_marks else Rendered(text)
        raise FaultError(
            Fault(
                kind=ProblemKind.TEMPLATE,
                found=f"a conversation that the chat template refuses: {shorten(str(refusal), 160)}",
                expected="one that it renders",
                remedy="change the row, or set another dataset.chatTemplate",
            )
        ) from refusal

    def _written(self, turns: list[dict[str, Any]], **given: object) -> str:
        """The template's own text, with its marks.

        Raises:
            FaultError: it takes too long.
        """
        try:
            with CpuLimit(self._seconds):
                return str(self._compiled.render(messages=turns, documents=None, **given, **self._special_tokens))
        except CpuTimeoutError:
            self.loops = True
            raise FaultError(_TOO_LONG) from None

    @cached_property
    def roles_in_parts(self) -> frozenset[str]:
        """The roles whose content the template takes as a list of parts, `[{"type": "text", "text": …}]`, only.

        Templates of image-text models go through such a list. Of a text they write nothing, or letters. Servers look
        at the template too, and send it what it takes (vLLM's `--chat-template-content-format auto`).
        """
        first, choices = None, (frozenset[str](), _EVERY_ROLE, _EVERY_ROLE - {"assistant"})
        for roles in choices:
            turns = [_as_parts(turn, roles) for turn in _PROBE]
            with suppress(*self._refusals):
                text = self._written(turns, tools=None, add_generation_prompt=False)
                if all(turn["content"] in text for turn in _PROBE):
                    first = roles
                    break
        return first or frozenset()


_EVERY_ROLE = frozenset({"system", "user", "assistant", "tool"})
_PROBE = ({"role": "user", "content": "asked7"}, {"role": "assistant", "content": "said8"})


def _as_parts(turn: dict[str, Any], roles: Collection[str]) -> dict[str, Any]:
    if turn["role"] not in roles or turn["content"] is None:
        return turn
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _forms(messages: Messages, in_parts: Collection[str]) -> Iterator[list[list[dict[str, Any]]]]:
    """What a template is given: lists of forms, one after the other until it takes a form.

    Templates differ only in tool calls. The arguments of a call are an object for most templates and JSON in a text for
    DeepSeek's. The content of a turn with only calls is null for DeepSeek's and an empty text for Qwen-VL's and GLM's.
    So a list may have both, and the one is right of which fewer nulls are written.
    """
    turns = [
        under_every_name({"role": turn.role, "content": turn.content, **(turn.more or {})}) for turn in messages.turns
    ]
    forms = [turns]
    if any(turn.content is None for turn in messages.turns):
        forms.append([{**turn, "content": ""} if turn["content"] is None else turn for turn in turns])
    if in_parts:
        forms = [[_as_parts(turn, in_parts) for turn in form] for form in forms]
    yield forms
    if any(turn.calls for turn in messages.turns):
        yield [[_with_arguments_as_text(turn) for turn in form] for form in forms]


def _nulls(text: str) -> int:
    """How often a template may have written a null in a text: in Jinja's way, or in that of `tojson`."""
    return text.count("None") + text.count("null")


def _with_arguments_as_text(turn: dict[str, Any]) -> dict[str, Any]:
    return {**turn, "tool_calls": list(map(_as_text, turn["tool_calls"]))} if "tool_calls" in turn else turn


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def require_syntax(source: str) -> None:
    """Requires that a template parses. It does not compile the template, because Jinja then evaluates constants.

    Raises:
        ValueError: the template does not parse; the message says where and why.
    """
    from finetune_trainer.data.templates.sandbox import Sandbox

    Sandbox().parsed(source)


def template_of(tokenizer_template: object) -> str | None:
    """A tokenizer's own template for plain conversations; None if it has none.

    Some tokenizers have several named templates. A server uses `default` for requests without tools.
    """
    if isinstance(tokenizer_template, Mapping):
        tokenizer_template = tokenizer_template.get("default")
    return tokenizer_template if isinstance(tokenizer_template, str) and tokenizer_template else None


def for_servers(source: str) -> str:
    """The template with its `{% generation %}` marks as comments, for servers that do not know the tag.

    The comments keep the dashes of the tags. Jinja trims blanks around a comment as it does around a tag, so the
    rendered text stays the same.
    """
    return _COMMENT_OR_MARK.sub(
        lambda match: f"{{#{match[1]} {match[2]} {match[3]}#}}" if match[2] else match[0], source
    )


def _without_marks(text: str) -> Rendered:
    """Removes the marks from a rendered text and returns the marked parts. Nested and adjoining parts are merged."""
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
