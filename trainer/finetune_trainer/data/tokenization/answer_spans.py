"""Where the assistant's parts stand in a rendered conversation whose chat template does not mark them.

A part begins where the prompt ends that a server would send, because the model writes what follows. It ends with the
content, or with the end of turn after the tool calls. Each template writes calls differently, so they are found by
rendering other calls in their place.

A conversation is rendered a few times, however many turns it has: where the template writes the same text before two
answers, the prompt ends at the same place of that text.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.data.reasoning import reasoning_of, split_reasoning
from finetune_trainer.data.templates.chat import ChatTemplate, Span
from finetune_trainer.data.templates.skeleton import (
    PLACEHOLDER,
    Skeleton,
    probed,
    shared_prefix,
    shared_suffix,
    spoken_turns,
    with_placeholders,
)
from finetune_trainer.data.templates.turn_ending import TurnEnding
from finetune_trainer.data.templates.written import left_out, reasoning_left_out, with_other_calls

_Divided = Mapping[int, tuple[str, str, str]]
"""By turn: what may stand anywhere before the rest of the content, what is thought in it, and the rest."""


@dataclass(frozen=True, slots=True)
class _Around:
    """The template's own text around the calls of a turn.

    Attributes:
        start: where `before` stands in the text.
        before: what is written between the content before the turn and the turn's own content, or its first call.
        end: where the calls end in the text.
        after: what is written from there to the next content.
        follows: whether the content before the turn is that of the turn before.
    """

    start: int
    before: str
    end: int
    after: str
    follows: bool


class AnswerSpans:
    """The assistant's parts of one conversation.

    Args:
        template: the chat template.
        ending: its end of turn.
        messages: the conversation.
        text: what the template makes of it.
        trained: numbers of the turns that are trained; their reasoning must be in the text.
    """

    def __init__(
        self, template: ChatTemplate, ending: TurnEnding, messages: Messages, text: str, trained: Collection[int]
    ) -> None:
        self._template = template
        self._ending = ending
        self._messages = messages
        self._text = text
        self._trained = trained
        self._prompt_ends: dict[tuple[str, str], str | None] = {}
        self._beginnings: dict[tuple[str, str], int] = {}
        self._closings: list[str] = []

    def find(self, whole: Skeleton | None) -> list[Span]:
        """The part of each answer, in order; a part with calls has its end of turn.

        Args:
            whole: the skeleton without the contents of all turns; None where the template has none.

        Raises:
            FaultError: the template changes what is around a part depending on the part, so that the place is not
                certain; it leaves out reasoning of a turn that is trained; or it writes no end of turn after calls.
        """
        skeleton, contents, places = self._placed(whole)
        spans = {
            turn: self._said(turn, skeleton, places, contents[turn][1])
            for turn in self._messages.answers
            if not self._messages.turns[turn].calls
        }
        if calling := [turn for turn in self._messages.answers if self._messages.turns[turn].calls]:
            spans |= self._called(calling, skeleton, places, contents)
        ordered = [spans[turn] for turn in self._messages.answers]
        if any(later.start < earlier.end for earlier, later in pairwise(ordered)):
            raise FaultError(UNCERTAIN)
        return ordered

    def _placed(self, whole: Skeleton | None) -> tuple[Skeleton, _Divided, Mapping[int, Span]]:
        """A skeleton that the text has, and where the contents stand in it.

        A template may look into the contents that it is given. Then the placeholders of all turns make another text,
        and only the answers are replaced. It may also write <think> blocks inside the contents as it likes.

        Raises:
            FaultError: there is none.
        """
        answers = [turn for turn in self._messages.answers if not self._messages.turns[turn].calls]
        spoken = spoken_turns(self._messages)
        plain = {turn: ("", "", self._messages.turns[turn].content or "") for turn in spoken}
        thought = {
            **plain,
            **{turn: split_reasoning(plain[turn][2]) for turn in self._messages.answers if turn in plain},
        }
        thinks = any(head for head, _, _ in thought.values())
        for turns in (spoken, answers):
            for contents in (plain, thought) if thinks else (plain,):
                heads = {turn: head for turn, (head, _, _) in contents.items()}
                known = turns is spoken and contents is plain
                skeleton = whole if known else Skeleton.of(self._template, self._messages, turns, heads)
                rest = {turn: content for turn, (_, _, content) in contents.items()}
                if skeleton is not None and (places := skeleton.places(self._text, rest)) is not None:
                    return skeleton, contents, places
        raise FaultError(UNCERTAIN)

    def _said(self, turn: int, skeleton: Skeleton, places: Mapping[int, Span], thought: str) -> Span:
        """The part of an answer without calls: from the end of the prompt to the content's end.

        Raises:
            FaultError: reasoning is left out of a turn that is trained.
        """
        start, before = places[turn].start, skeleton.before(turn)
        position = start - len(before)
        asked = self._prompt_end(turn, before, position)
        begin = start if asked is None or asked > places[turn].end else asked
        if (
            thought
            and turn in self._trained
            and thought not in self._text[begin if begin < start else position : start]
        ):
            raise FaultError(reasoning_left_out())
        if begin == start and (thought := thought or reasoning_of(self._messages.turns[turn]).strip()):
            # The template's own prompt has another beginning than an answer with reasoning.
            place = self._text.rfind(thought, position, start)
            begin = place if place >= 0 else start
        return Span(begin, places[turn].end)

    def _prompt_end(self, turn: int, before: str, position: int) -> int | None:
        """Where the prompt ends that a server would send for this turn.

        The part may begin before the content, with a blank (Llama 2) or an empty <think> block (Qwen). It may begin
        inside of it: a prompt that ends with <think> has the tag of a content that begins with it (MiniMax M2).

        Args:
            turn: the assistant's turn.
            before: what the template writes between the content before it and the turn's own beginning.
            position: where `before` stands in the text.

        Returns:
            None where the text goes on from another beginning.
        """
        role = self._messages.turns[turn - 1].role if turn else ""
        key = (role, before)
        if key not in self._prompt_ends:
            prompt = self._prompt(self._messages.before(turn))
            known = prompt is not None and prompt.startswith(self._text[:position])
            self._prompt_ends[key] = prompt[position:] if prompt and known else self._after_the_turn_before(turn)
        end = self._prompt_ends[key]
        return position + len(end) if end is not None and self._text.startswith(end, position) else None

    def _after_the_turn_before(self, turn: int) -> str | None:
        """What stands in the prompt for this turn after the content of the turn before; None where that is not certain.

        It is the same where the prompt has another beginning: Muse Glimmer writes a system message of its own until
        there is one.
        """
        if turn == 0 or self._messages.turns[turn - 1].calls:
            return None
        prompt = self._prompt(with_placeholders(self._messages.before(turn), [turn - 1])) or ""
        _, separator, after = prompt.partition(PLACEHOLDER.format(turn - 1))
        return after if separator else None

    def _prompt(self, messages: Messages) -> str | None:
        """The prompt that a server would send for these messages; None where the template refuses them."""
        try:
            return self._template.render(messages, add_generation_prompt=True).text
        except FaultError:
            return None

    def _asked(self, turn: int) -> int:
        """Where in the text the prompt ends; -1 where the template goes on from another beginning."""
        prompt = self._prompt(self._messages.before(turn))
        return len(prompt) if prompt is not None and self._text.startswith(prompt) else -1

    def _called(
        self, calling: list[int], skeleton: Skeleton, places: Mapping[int, Span], contents: _Divided
    ) -> dict[int, Span]:
        """The parts of turns with tool calls: from the end of the prompt to the end of turn after the calls.

        Raises:
            FaultError: see `find`.
        """
        others = self._with_other_calls(calling, skeleton, contents)
        numbers = {turn: sum(spoken <= turn for spoken in skeleton.turns) for turn in calling}
        spans: dict[int, Span] = {}
        for turn, number in numbers.items():
            if others is None or list(numbers.values()).count(number) > 1:
                spans[turn] = self._called_alone(turn)[0]
                continue
            spans[turn] = self._called_between(turn, number, skeleton, others, places)
            if turn in self._trained and turn in places:
                self._require_thought(contents[turn][1], spans[turn].start, places[turn].start)
        return spans

    def _with_other_calls(self, calling: list[int], skeleton: Skeleton, contents: _Divided) -> Skeleton | None:
        """The same skeleton with calls of other tools; None where the contents of some turns are not replaced."""
        if set(skeleton.turns) != set(spoken_turns(self._messages)):
            return None
        turns = list(self._messages.turns)
        for turn in calling:
            turns[turn] = with_other_calls(turns[turn], turn)
        heads = {turn: head for turn, (head, _, _) in contents.items()}
        return Skeleton.of(self._template, Messages(tuple(turns), self._messages.tools), skeleton.turns, heads)

    def _require_thought(self, thought: str, start: int, end: int) -> None:
        if thought and thought not in self._text[start:end]:
            raise FaultError(reasoning_left_out())

    def _called_between(
        self, turn: int, number: int, skeleton: Skeleton, other: Skeleton, places: Mapping[int, Span]
    ) -> Span:
        """The part of the only turn with calls in the literal text of this number.

        What was found for a turn with the same text before and after its calls holds for this one too.

        Raises:
            FaultError: see `find`.
        """
        own, others = skeleton.literals[number], other.literals[number]
        position = begin = places[skeleton.turns[number - 1]].end if number else 0
        first = shared_prefix(own, others)
        last = len(own) - min(shared_suffix(own, others), min(len(own), len(others)) - first)
        before = own[:first]
        if turn in places:
            before = skeleton.before(turn)
            position = places[turn].start - len(before)
        key = (self._messages.turns[turn - 1].role if turn else "", before)
        closing = next((known for known in self._closings if own.startswith(known, last)), None)
        if closing is not None and key in self._beginnings:
            return Span(position + self._beginnings[key], begin + last + len(closing))
        earlier = [spoken for spoken in skeleton.turns if spoken < turn]
        follows = bool(earlier) and earlier[-1] == turn - 1
        span, closing = self._called_alone(turn, _Around(position, before, begin + last, own[last:], follows=follows))
        if position <= span.start <= position + len(before) and own.startswith(closing, last):
            self._beginnings[key] = span.start - position
            self._closings.append(closing)
        return span

    def _called_alone(self, turn: int, around: "_Around | None" = None) -> tuple[Span, str]:
        """The part of a turn with calls, and its text after the calls.

        The conversation is rendered as if it ended there, with these calls and with others. What stands between the
        first difference and the end of turn is looked for in the text. (The whole rendering may not be found: Qwen 3
        writes an empty <think> block into the last turn only.) Where a call is written otherwise in the last turn
        (Apriel, Nemotron Nano 2), the usual end of turn is looked for after the calls.

        Raises:
            FaultError: see `find`.
        """
        start, messages = self._begin_of_calls(turn, around), self._messages
        own = self._probed(messages.before(turn + 1))
        renamed = with_other_calls(messages.turns[turn], turn)
        other = self._probed(messages.before(turn).with_turn(renamed))
        first = shared_prefix(own, other)
        last = len(own) - shared_suffix(own, other)
        end = self._ending.in_closing(own[last:])
        if end is None:
            raise FaultError(ENDLESS)
        closing = own[last : last + end]
        place = self._text.find(own[first : last + end], start)
        if place >= 0:
            end = place + last + end - first
        else:
            usual = self._ending.usual_in(around.after) if around else None
            if around is None or usual is None:
                raise FaultError(UNCERTAIN)
            end, closing = around.end + usual, around.after[:usual]
        _, thought, content = split_reasoning(messages.turns[turn].content or "")
        written = _squeezed(self._text[start:end])
        if _squeezed(content) not in written:
            raise FaultError(left_out("the assistant's text beside its tool calls"))
        if turn in self._trained and _squeezed(thought) not in written:
            raise FaultError(reasoning_left_out())
        return Span(start, end), closing

    def _begin_of_calls(self, turn: int, around: "_Around | None") -> int:
        """Where a turn with calls begins: at the end of the prompt, or where a text in place of the calls would stand.

        A template may open the answer in the prompt (<think>), and not before calls (Nemotron Nano 2, Command A). Then
        a turn begins after the last token or line that both have.

        Raises:
            FaultError: neither is certain.
        """
        asked = self._asked(turn)
        if asked >= 0:
            return asked
        said = Message(role="assistant", content=PLACEHOLDER.format(0))
        # A template may refuse what a tool says after a text.
        for later in (self._messages.turns[turn + 1 :], ()):
            turns = (*self._messages.turns[:turn], said, *later)
            plain = probed(self._template, Messages(turns, self._messages.tools)) or ""
            before, separator, _ = plain.partition(PLACEHOLDER.format(0))
            if separator and self._text.startswith(before):
                return len(before)
        after = self._after_the_turn_before(turn) if around and around.follows else None
        if around and after:
            shared = after[: shared_prefix(after, around.before)]
            if begin := len(shared) if shared == after else self._ending.last_boundary(shared):
                return around.start + begin
        raise FaultError(UNCERTAIN)

    def _probed(self, messages: Messages) -> str:
        """The text of a conversation that stands in no row.

        Raises:
            FaultError: the template refuses it.
        """
        text = probed(self._template, messages)
        if text is None:
            raise FaultError(UNCERTAIN)
        return text


def _squeezed(text: str) -> str:
    return "".join(text.split())


UNCERTAIN = Fault(
    kind=ProblemKind.TEMPLATE,
    found="an assistant's text that the chat template rewrites, moves or leaves out",
    expected="the text as it stands in the row: else it is not certain which tokens are the assistant's",
    remedy="use dataset.loss: all, another dataset.chatTemplate, or rows of prompt and completion",
)
ENDLESS = Fault(
    kind=ProblemKind.TEMPLATE,
    found="no end-of-turn token after the assistant's text",
    expected="one that the chat template writes: a model trained without it would never stop",
    remedy="write {{ eos_token }} there, use another dataset.chatTemplate, or rows of prompt and completion",
)
