"""Which parts of a rendered conversation are trained: those that the assistant wrote.

The text is what a server renders with the same template. If the template marks the assistant's parts with
`{% generation %}`, the marks decide. The built-in templates have them, few others do. Otherwise the conversation is
rendered once more with placeholders for the assistant's texts: what is around them is the template's own text. Each
template writes tool calls differently, so they are found by rendering other calls in their place. The end-of-turn token
after each part is trained too, because a model that never trained on it never stops.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.reasoning import reasoning_of, split_reasoning
from finetune_trainer.data.templates.chat import ChatTemplate, Rendered, Span
from finetune_trainer.data.templates.written import (
    PLACEHOLDER,
    left_out,
    reasoning_left_out,
    require_written,
    with_other_calls,
)


class LossMask:
    """Renders conversations and finds what is trained in them.

    Args:
        template: the chat template.
        special: the tokenizer's special tokens as text: what an end of turn may be.
        loss: which turns are trained.
    """

    def __init__(self, template: ChatTemplate, special: Collection[str], loss: Loss) -> None:
        self._template = template
        self._loss = loss
        tokens = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True) if token)
        # "(?!)" is found nowhere.
        self._end = re.compile(tokens or "(?!)")
        self._end_after = re.compile(rf"\s*(?:{tokens or '(?!)'})")
        self._ends = tuple(token for token in special if token)

    def __call__(self, messages: Messages) -> tuple[str, list[Span]]:
        """The conversation's text, and the parts of it that are trained, in order.

        Raises:
            FaultError: the template refuses the conversation, leaves a part of it out, writes no end of turn, or leaves
                it uncertain which part is the assistant's.
        """
        rendered, answers = self._template.render(messages), messages.answers
        trained = self._trained(messages)
        require_written(self._template, messages, rendered.text, trained)
        if self._loss is Loss.ALL:
            return rendered.text, [Span(0, len(rendered.text))]
        marked, text = self._template.has_marks, rendered.text
        spans = marked_spans(rendered) if marked else self._found_spans(messages, text, trained)
        if len(spans) == len(answers):
            spans = [span for turn, span in zip(answers, spans, strict=True) if turn in trained]
        elif not all(messages.turns[turn].trained for turn in answers):
            raise FaultError(_UNCERTAIN)
        elif self._loss is Loss.COMPLETION:
            spans = spans[-1:]
        return rendered.text, [self._with_end(rendered.text, span) for span in spans]

    def _trained(self, messages: Messages) -> list[int]:
        """Which turns are trained.

        Raises:
            FaultError: all are to be, and one is not.
        """
        answers = messages.answers
        trained = [turn for turn in answers if messages.turns[turn].trained]
        if self._loss is Loss.ALL and trained != answers:
            raise FaultError(_UNTRAINED)
        return [turn for turn in trained if turn == answers[-1]] if self._loss is Loss.COMPLETION else trained

    def prompt(self, messages: Messages) -> str:
        """The text that a server sends for these messages.

        Raises:
            FaultError: the template refuses them.
        """
        return self._template.render(messages, add_generation_prompt=True).text

    def _found_spans(self, messages: Messages, text: str, trained: Collection[int]) -> list[Span]:
        """Where each assistant's part stands.

        Raises:
            FaultError: the template changes what is around a part depending on the part, so that the place is not
                certain; or it leaves out reasoning of a turn that is trained.
        """
        contents = {turn: ("", "", messages.turns[turn].content or "") for turn in messages.answers}
        try:
            span_of = dict(self._said(messages, text, contents, trained))
        except FaultError:
            # Perhaps because of <think> blocks inside the contents, which a template may write as it likes.
            thought = {turn: split_reasoning(content) for turn, (_, _, content) in contents.items()}
            if not any(head for head, _, _ in thought.values()):
                raise
            span_of = dict(self._said(messages, text, thought, trained))
        span_of |= {
            turn: self._called(messages, turn, text, trained) for turn in messages.answers if messages.turns[turn].calls
        }
        spans = [span_of[turn] for turn in messages.answers]
        if any(later.start < earlier.end for earlier, later in pairwise(spans)):
            raise FaultError(_UNCERTAIN)
        return spans

    def _said(
        self, messages: Messages, text: str, contents: dict[int, tuple[str, str, str]], trained: Collection[int]
    ) -> Iterator[tuple[int, Span]]:
        """The parts that are text: from the end of the prompt to the content's end.

        Args:
            messages: the conversation.
            text: its text.
            contents: of each answer what may stand anywhere before the rest, what is thought in it, and the rest.
            trained: which turns are trained.

        Raises:
            FaultError: see `_found_spans`.
        """
        turns = [turn for turn in messages.answers if not messages.turns[turn].calls]
        position = 0
        for turn, before, after in zip(turns, *self._around(messages, turns, contents), strict=True):
            _, thought, content = contents[turn]
            start = position + len(before)
            if text[position:start] != before:
                raise FaultError(_UNCERTAIN)
            fits = (form for form in _trimmed(content) if text.startswith(form + after, start))
            if (written := next(fits, None)) is None:
                raise FaultError(_UNCERTAIN)
            asked = self._end_of_prompt(messages.before(turn), text)
            begin = asked if position <= asked <= start else start
            if thought and turn in trained and thought not in text[begin if begin < start else position : start]:
                raise FaultError(reasoning_left_out())
            if begin == start and (thought := thought or reasoning_of(messages.turns[turn]).strip()):
                # The template's own prompt has another beginning than an answer with reasoning.
                place = text.rfind(thought, position, start)
                begin = place if place >= 0 else start
            yield turn, Span(begin, start + len(written))
            position = start + len(written)
        if turns and text[position:] != after:
            raise FaultError(_UNCERTAIN)

    def _around(
        self, messages: Messages, turns: list[int], contents: dict[int, tuple[str, str, str]]
    ) -> tuple[list[str], list[str]]:
        """What the template writes before each of these turns' contents, and after it up to the next.

        Raises:
            FaultError: it leaves one of them out.
        """
        marked = list(messages.turns)
        for number, turn in enumerate(turns):
            marked[turn] = replace(marked[turn], content=contents[turn][0] + PLACEHOLDER.format(number))
        skeleton, parts = self._template.render(Messages(tuple(marked), messages.tools)).text, list[str]()
        for number in range(len(turns)):
            before, separator, skeleton = skeleton.partition(PLACEHOLDER.format(number))
            if not separator:
                raise FaultError(_UNCERTAIN)
            parts.append(before)
        parts.append(skeleton)
        return parts[:-1], parts[1:]

    def _called(self, messages: Messages, turn: int, text: str, trained: Collection[int]) -> Span:
        """The part of a turn with tool calls: from the end of the prompt to the end-of-turn token after the calls.

        It is rendered as if it ended there, with these calls and with others: from where the two differ to the last
        special token stands what must be found in the text. (Templates may write the last turn otherwise than one
        in the middle, Qwen 3 with an empty <think> block, so that the rendering itself may not be found.)

        Raises:
            FaultError: see `_found_spans`; or the template writes no end of turn.
        """
        start = self._begin_of_calls(messages, turn, text)
        own = self._template.render(messages.before(turn + 1)).text
        other = self._template.render(messages.before(turn).with_turn(with_other_calls(messages.turns[turn]))).text
        first, last = _shared(own, other), len(own) - _shared(own[::-1], other[::-1])
        ends = [end.end() for end in self._end.finditer(own, last)]
        if not ends:
            raise FaultError(_ENDLESS)
        place = text.find(own[first : ends[-1]], start)
        if place < 0:
            raise FaultError(_UNCERTAIN)
        end = place + ends[-1] - first
        _, thought, content = split_reasoning(messages.turns[turn].content or "")
        written = _squeezed(text[start:end])
        if _squeezed(content) not in written:
            raise FaultError(left_out("the assistant's text beside its tool calls"))
        if turn in trained and _squeezed(thought) not in written:
            raise FaultError(reasoning_left_out())
        return Span(start, end)

    def _begin_of_calls(self, messages: Messages, turn: int, text: str) -> int:
        """Where a turn with calls begins: at the end of the prompt, or where a text in place of the calls would stand.

        Raises:
            FaultError: neither is certain.
        """
        asked = self._end_of_prompt(messages.before(turn), text)
        if asked >= 0:
            return asked
        said = Message(role="assistant", content=PLACEHOLDER.format(0))
        plain = Messages((*messages.turns[:turn], said, *messages.turns[turn + 1 :]), messages.tools)
        before, separator, _ = self._template.render(plain).text.partition(PLACEHOLDER.format(0))
        if not separator or not text.startswith(before):
            raise FaultError(_UNCERTAIN)
        return len(before)

    def _end_of_prompt(self, before: Messages, text: str) -> int:
        """Where in `text` the prompt ends that a server would send; the model writes what follows.

        It may begin with a blank (Llama-2) or an empty <think> block (Qwen) before the content. -1 where the template
        writes the beginning of the conversation otherwise once it goes on.
        """
        try:
            prompt = self.prompt(before)
        except FaultError:
            return -1
        return len(prompt) if text.startswith(prompt) else -1

    def _with_end(self, text: str, span: Span) -> Span:
        """The span with the end of turn that follows it, unless that is in it already."""
        if text[span.start : span.end].rstrip().endswith(self._ends):
            return span
        if self._ending and text.startswith(self._ending, span.end):
            return Span(span.start, span.end + len(self._ending))
        if end := self._end_after.match(text, span.end):
            return Span(span.start, end.end())
        raise FaultError(_ENDLESS)

    @cached_property
    def _ending(self) -> str:
        """What stands after an answer whether or not a turn follows, up to its last special token.

        Most templates end a turn with one token, Cohere's with two; empty where it differs.
        """
        asked, said = Message(role="user", content="a"), Message(role="assistant", content=PLACEHOLDER.format(0))
        try:
            texts = [self._template.render(Messages(turns)).text for turns in ((asked, said), (asked, said, asked))]
        except FaultError:
            return ""
        last, other = (text.partition(PLACEHOLDER.format(0))[2] for text in texts)
        both = last[: _shared(last, other)]
        return both[: max((end.end() for end in self._end.finditer(both)), default=0)]


def _trimmed(content: str) -> Iterator[str]:
    """The ways in which a template may write a content: with its blanks, or without some of those at its ends."""
    for start in (content, content.lstrip("\n"), content.lstrip()):
        yield from (start, start.rstrip("\n"), start.rstrip())


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _shared(first: str, second: str) -> int:
    """With how many characters both begin; by halves, since texts are long and there is one a call."""
    same, differs = 0, min(len(first), len(second)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            differs = middle
    return same


def marked_spans(rendered: Rendered) -> list[Span]:
    """The parts that the template itself marks as the assistant's.

    Raises:
        FaultError: it marks none.
    """
    if not rendered.marked:
        raise FaultError(_UNMARKED)
    return list(rendered.marked)


_UNCERTAIN = Fault(
    kind=ProblemKind.TEMPLATE,
    found="an assistant's text that the chat template rewrites, moves or leaves out",
    expected="the text as it stands in the row: else it is not certain which tokens are the assistant's",
    remedy="use dataset.loss: all, another dataset.chatTemplate, or rows of prompt and completion",
)
_UNMARKED = Fault(
    kind=ProblemKind.TEMPLATE,
    found="no part that the chat template marks with {% generation %}",
    expected="the assistant's texts inside {% generation %} and {% endgeneration %}",
    remedy="mark them in dataset.chatTemplate, or use dataset.loss: all",
)
_ENDLESS = Fault(
    kind=ProblemKind.TEMPLATE,
    found="no end-of-turn token after the assistant's text",
    expected="one that the chat template writes: a model trained without it would never stop",
    remedy="write {{ eos_token }} there, use another dataset.chatTemplate, or rows of prompt and completion",
)
_UNTRAINED = Fault(
    kind=ProblemKind.TEMPLATE,
    found="a turn of the assistant that is not to be trained (of weight 0, or in a prompt), and dataset.loss is all",
    expected="turns that are all trained",
    remedy="use dataset.loss: auto, or remove the weights, or write the row as messages",
)
