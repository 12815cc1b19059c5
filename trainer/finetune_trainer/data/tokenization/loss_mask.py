"""Which parts of a rendered conversation are trained: those that the assistant wrote.

The text is what a server renders with the same template. If the template marks the assistant's parts with
`{% generation %}`, the marks decide. The built-in templates have them, few others do. Otherwise `AnswerSpans` finds the
parts. The end of turn after each part is trained too, because a model that never trained on it never stops. The blanks
after it are not, even where a mark has them (TRL's templates): a server stops at the end of turn.
"""

from collections.abc import Collection

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate, Rendered, Span
from finetune_trainer.data.templates.skeleton import Skeleton, spoken_turns
from finetune_trainer.data.templates.turn_ending import TurnEnding
from finetune_trainer.data.templates.written import require_written
from finetune_trainer.data.tokenization.answer_spans import ENDLESS, UNCERTAIN, AnswerSpans

_MOST_SKELETONS = 1000
"""Shapes of conversations whose skeleton is kept: data has few shapes, or too many to keep."""


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
        self._ending = TurnEnding(template, special)
        self._skeletons: dict[tuple[tuple[str, bool], ...], Skeleton | None] = {}

    def __call__(self, messages: Messages) -> tuple[str, list[Span]]:
        """The conversation's text, and the parts of it that are trained, in order.

        Raises:
            FaultError: the template refuses the conversation, leaves a part of it out, writes no end of turn, or leaves
                it uncertain which part is the assistant's.
        """
        rendered, answers = self._template.render(messages), messages.answers
        trained, text, whole = self._trained(messages), rendered.text, self._skeleton(messages)
        require_written(self._template, messages, text, trained, whole)
        if self._loss is Loss.ALL:
            return text, [Span(0, len(text))]
        marked = self._template.has_marks
        if marked:
            spans = [self._up_to_end(text, span) for span in marked_spans(rendered)]
        else:
            spans = AnswerSpans(self._template, self._ending, messages, text, trained).find(whole)
        ended = [(marked and self._ending.marked) or bool(messages.turns[turn].calls) for turn in answers]
        if len(spans) == len(answers):
            return text, [
                span if has_end else self._with_end(text, span)
                for turn, span, has_end in zip(answers, spans, ended, strict=True)
                if turn in trained
            ]
        if not all(messages.turns[turn].trained for turn in answers):
            raise FaultError(UNCERTAIN)
        spans = spans[-1:] if self._loss is Loss.COMPLETION else spans
        return text, [span if self._ending.marked else self._with_end(text, span) for span in spans]

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

    def _skeleton(self, messages: Messages) -> Skeleton | None:
        """The text around the contents of all turns; None where the template has no such text.

        It does not depend on the contents. So conversations of one shape share it.
        """
        spoken = spoken_turns(messages)
        if messages.tools or any(turn.more for turn in messages.turns):
            return Skeleton.of(self._template, messages, spoken)
        shape = tuple((turn.role, number in spoken) for number, turn in enumerate(messages.turns))
        if shape not in self._skeletons:
            if len(self._skeletons) == _MOST_SKELETONS:
                self._skeletons.clear()
            self._skeletons[shape] = Skeleton.of(self._template, messages, spoken)
        return self._skeletons[shape]

    def _up_to_end(self, text: str, span: Span) -> Span:
        """A marked part without the blanks after its end of turn: a server stops before them."""
        end = self._ending.before_blanks(text, span) if self._ending.marked else None
        return Span(span.start, end or span.end)

    def _with_end(self, text: str, span: Span) -> Span:
        """The span with the end of turn that follows it.

        Raises:
            FaultError: there is none.
        """
        end = self._ending.after_content(text, span.end)
        if end is None:
            raise FaultError(ENDLESS)
        return Span(span.start, end)


def marked_spans(rendered: Rendered) -> list[Span]:
    """The parts that the template itself marks as the assistant's.

    Raises:
        FaultError: it marks none.
    """
    if not rendered.marked:
        raise FaultError(_UNMARKED)
    return list(rendered.marked)


_UNMARKED = Fault(
    kind=ProblemKind.TEMPLATE,
    found="no part that the chat template marks with {% generation %}",
    expected="the assistant's texts inside {% generation %} and {% endgeneration %}",
    remedy="mark them in dataset.chatTemplate, or use dataset.loss: all",
)
_UNTRAINED = Fault(
    kind=ProblemKind.TEMPLATE,
    found="a turn of the assistant that is not to be trained (of weight 0, or in a prompt), and dataset.loss is all",
    expected="turns that are all trained",
    remedy="use dataset.loss: auto, or remove the weights, or write the row as messages",
)
