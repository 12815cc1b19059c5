"""Which part of a rendered conversation the assistant wrote: what is trained is decided on the text.

The text is the one that a server renders with the same template. Where the template marks the assistant's part with
`{% generation %}`, the marks decide. The built-in ones do, few others; otherwise the part is found by rendering the
conversation once more with placeholders in place of the assistant's texts: what stands around them is the template's
own writing. Tool calls, which every template writes in its own way, are found by rendering others in their place. The
end-of-turn token after each part is trained too, because a model that never saw it trained never stops.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import pairwise

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.example import Message, Talk
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate, Rendered, Span
from finetune_trainer.data.templates.written import left_out, require_written, with_other_calls

_PLACEHOLDER = "FINETUNEPLACEHOLDER{}X"


class TrainedText:
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

    def __call__(self, talk: Talk) -> tuple[str, list[Span]]:
        """The conversation's text, and the parts of it that are trained, in order.

        Raises:
            FaultError: the template refuses the conversation, leaves a part of it out, writes no end of turn, or leaves
                it uncertain which part is the assistant's.
        """
        rendered = self._template.render(talk)
        require_written(self._template, talk, rendered.text)
        answers = [talk.messages[index] for index in talk.answers]
        if self._loss is Loss.ALL:
            if not all(answer.trained for answer in answers):
                raise FaultError(_UNTRAINED)
            return rendered.text, [Span(0, len(rendered.text))]
        spans = marked_spans(rendered) if self._template.has_marks else self._found_spans(talk, rendered.text)
        if not all(answer.trained for answer in answers):
            if len(spans) != len(answers):
                raise FaultError(_UNCERTAIN)
            last = spans[-1]
            spans = [span for span, answer in zip(spans, answers, strict=True) if answer.trained]
            if self._loss is Loss.COMPLETION:
                spans = [span for span in spans if span is last]
        elif self._loss is Loss.COMPLETION:
            spans = spans[-1:]
        return rendered.text, [self._with_end(rendered.text, span) for span in spans]

    def prompt(self, talk: Talk) -> str:
        """The text that a server sends for these messages.

        Raises:
            FaultError: the template refuses them.
        """
        return self._template.render(talk, asking=True).text

    def _found_spans(self, talk: Talk, text: str) -> list[Span]:
        """Where each assistant's part stands.

        Raises:
            FaultError: the template changes what is around a part depending on the part, so that the place is not
                certain.
        """
        found = dict(self._said(talk, text))
        found |= {turn: self._called(talk, turn, text) for turn in talk.answers if talk.messages[turn].calls}
        spans = [found[turn] for turn in talk.answers]
        if any(later.start < earlier.end for earlier, later in pairwise(spans)):
            raise FaultError(_UNCERTAIN)
        return spans

    def _said(self, talk: Talk, text: str) -> Iterator[tuple[int, Span]]:
        """The parts that are text: from the end of the prompt to the content's end.

        Raises:
            FaultError: see `_found_spans`.
        """
        turns = [turn for turn in talk.answers if not talk.messages[turn].calls]
        marked = list(talk.messages)
        for number, turn in enumerate(turns):
            marked[turn] = replace(marked[turn], content=_PLACEHOLDER.format(number))
        skeleton = self._template.render(Talk(tuple(marked), talk.tools)).text
        position = 0
        for number, turn in enumerate(turns):
            before, found, skeleton = skeleton.partition(_PLACEHOLDER.format(number))
            content = talk.messages[turn].content or ""
            start = position + len(before)
            if not found or text[position:start] != before:
                raise FaultError(_UNCERTAIN)
            written = next((form for form in (content, content.strip()) if text.startswith(form, start)), None)
            if written is None:
                raise FaultError(_UNCERTAIN)
            asked = self._end_of_prompt(talk.before(turn), text)
            yield turn, Span(asked if position <= asked <= start else start, start + len(written))
            position = start + len(written)
        if text[position:] != skeleton:
            raise FaultError(_UNCERTAIN)

    def _called(self, talk: Talk, turn: int, text: str) -> Span:
        """The part of a turn with tool calls: from the end of the prompt to the end-of-turn token after the calls.

        The talk is rendered as if it ended there, with these calls and with others: from where the two differ to the
        last special token stands what must be found in the text. (Templates may write the last turn otherwise than one
        in the middle, Qwen 3 with an empty <think> block, so that the rendering itself may not be found.)

        Raises:
            FaultError: see `_found_spans`; or the template writes no end of turn.
        """
        start = self._begin_of_calls(talk, turn, text)
        own = self._template.render(talk.before(turn + 1)).text
        other = self._template.render(talk.before(turn).with_turn(with_other_calls(talk.messages[turn]))).text
        first, last = _shared(own, other), len(own) - _shared(own[::-1], other[::-1])
        ends = [end.end() for end in self._end.finditer(own, last)]
        if not ends:
            raise FaultError(_ENDLESS)
        place = text.find(own[first : ends[-1]], start)
        if place < 0:
            raise FaultError(_UNCERTAIN)
        end = place + ends[-1] - first
        if (content := (talk.messages[turn].content or "").strip()) and content not in text[start:end]:
            raise FaultError(left_out("the assistant's text beside its tool calls"))
        return Span(start, end)

    def _begin_of_calls(self, talk: Talk, turn: int, text: str) -> int:
        """Where a turn with calls begins: at the end of the prompt, or where a text in place of the calls would stand.

        Raises:
            FaultError: neither is certain.
        """
        asked = self._end_of_prompt(talk.before(turn), text)
        if asked >= 0:
            return asked
        said = Message(role="assistant", content=_PLACEHOLDER.format(0))
        plain = Talk((*talk.messages[:turn], said, *talk.messages[turn + 1 :]), talk.tools)
        before, found, _ = self._template.render(plain).text.partition(_PLACEHOLDER.format(0))
        if not found or not text.startswith(before):
            raise FaultError(_UNCERTAIN)
        return len(before)

    def _end_of_prompt(self, before: Talk, text: str) -> int:
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
        """The span with the end-of-turn token that follows it, unless that is in it already."""
        if text[span.start : span.end].rstrip().endswith(self._ends):
            return span
        if end := self._end_after.match(text, span.end):
            return Span(span.start, end.end())
        raise FaultError(_ENDLESS)


def _shared(first: str, second: str) -> int:
    """With how many characters both begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


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
    found="a turn of weight 0, and dataset.loss is all",
    expected="turns that are all trained",
    remedy="use dataset.loss: auto, or remove the weights",
)
