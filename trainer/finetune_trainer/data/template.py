"""Which part of a rendered conversation the assistant wrote: what is trained is decided on the text.

The text is the one that a server renders with the same template. Where the template marks the assistant's part with
`{% generation %}`, the marks decide. The built-in ones do, few others; otherwise the part is found by rendering the
conversation once more with placeholders in place of the assistant's texts: what stands around them is the template's
own writing. The end-of-turn token after each assistant text is trained too, because a model that never saw it trained
never stops.
"""

import re
from collections.abc import Collection, Sequence

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.example import Message
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate, Rendered, Span

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
        self._end_after = re.compile(rf"\s*(?:{tokens or '(?!)'})")
        self._ends = tuple(token for token in special if token)

    def __call__(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The conversation's text, and the parts of it that are trained, in order.

        Raises:
            FaultError: the template refuses the conversation, writes no end of turn, or leaves it uncertain which part
                is the assistant's.
        """
        rendered = self._template.render(messages)
        if self._loss is Loss.ALL:
            return rendered.text, [Span(0, len(rendered.text))]
        spans = marked_spans(rendered) if self._template.has_marks else self._found_spans(messages, rendered.text)
        if self._loss is Loss.COMPLETION:
            spans = spans[-1:]
        return rendered.text, [self._with_end(rendered.text, span) for span in spans]

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text that a server sends for these messages.

        Raises:
            FaultError: the template refuses them.
        """
        return self._template.render(messages, asking=True).text

    def _found_spans(self, messages: Sequence[Message], text: str) -> list[Span]:
        """Where each assistant's part stands: from the end of the prompt to the content's end.

        Raises:
            FaultError: the template changes what is around the content depending on the content, so that the place
                is not certain.
        """
        turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
        marked = list(messages)
        for number, index in enumerate(turns):
            marked[index] = Message(role="assistant", content=_PLACEHOLDER.format(number))
        skeleton = self._template.render(marked).text
        spans: list[Span] = []
        position = 0
        for number, index in enumerate(turns):
            before, found, skeleton = skeleton.partition(_PLACEHOLDER.format(number))
            content = messages[index].content
            start = position + len(before)
            if not found or text[position:start] != before:
                raise FaultError(_UNCERTAIN)
            written = next((form for form in (content, content.strip()) if text.startswith(form, start)), None)
            if written is None:
                raise FaultError(_UNCERTAIN)
            asked = self._end_of_prompt(messages[:index], text)
            spans.append(Span(asked if position <= asked <= start else start, start + len(written)))
            position = start + len(written)
        if text[position:] != skeleton:
            raise FaultError(_UNCERTAIN)
        return spans

    def _end_of_prompt(self, before: Sequence[Message], text: str) -> int:
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
