"""What a chat template writes after an answer to end its turn.

A model that never trained on the end of turn never stops. What stands after the end of turn is written by the server.
"""

import re
from collections.abc import Collection
from functools import cached_property

from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.chat import ChatTemplate, Span
from finetune_trainer.data.templates.skeleton import PLACEHOLDER, probed, shared_prefix

_QUESTION, _ANSWER = PLACEHOLDER.format("U"), PLACEHOLDER.format("A")
_LONGEST = 200
"""Characters of the longest special token."""
_ASKED, _SAID = Message(role="user", content=_QUESTION), Message(role="assistant", content=_ANSWER)


class TurnEnding:
    """The end of an answer's turn.

    Args:
        template: the chat template.
        special: the tokenizer's special tokens as text: what an end of turn is made of.
    """

    def __init__(self, template: ChatTemplate, special: Collection[str]) -> None:
        self._template = template
        tokens = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True) if token)
        # "(?!)" is found nowhere.
        self._special = re.compile(tokens or "(?!)")
        self._special_after = re.compile(rf"\s*(?:{tokens or '(?!)'})")

    def after_content(self, text: str, position: int) -> int | None:
        """Where the turn ends whose content ends at `position`; None where the template writes no end of turn."""
        if self._usual and text.startswith(self._usual, position):
            return position + len(self._usual)
        end = self._special_after.match(text, position)
        return end.end() if end and end[0].lstrip() not in self._headers else None

    def in_closing(self, closing: str) -> int | None:
        """Where the turn ends in the text that follows its last tool call; None where there is no end of turn.

        Args:
            closing: the text from inside the call on; its end, or the beginning of the next turn, closes the turn.
        """
        if self._usual and (place := closing.find(self._usual)) >= 0:
            return place + len(self._usual)
        ends = [end.end() for end in self._special.finditer(self._up_to_next_turn(closing))]
        return ends[-1] if ends else None

    def before_blanks(self, text: str, span: Span) -> int | None:
        """Where the last special token of a part ends, if only blanks follow it there; else None."""
        part = text[span.start : span.end].rstrip()
        # A special token has few characters, and a part may have millions.
        ends = [found.end() for found in self._special.finditer(part, max(0, len(part) - _LONGEST))]
        return span.start + len(part) if ends and ends[-1] == len(part) else None

    def usual_in(self, closing: str) -> int | None:
        """Where the usual end of turn ends in a text that goes on with the next turn; None where it is not there."""
        place = closing.find(self._usual) if self._usual else -1
        return place + len(self._usual) if place >= 0 else None

    def last_boundary(self, header: str) -> int:
        """Where the last special token or line of the beginning of a turn ends; 0 where there is none."""
        ends = [found.end() for found in self._special.finditer(header)]
        return max(*ends, header.rfind("\n") + 1, 0) if ends else 0

    @cached_property
    def marked(self) -> bool:
        """Whether the template's own marks ({% generation %}) enclose the end of turn."""
        try:
            rendered = self._template.render(Messages((_ASKED, _SAID)))
        except FaultError:
            return False
        if not rendered.marked:
            return False
        span = rendered.marked[-1]
        _, _, after = rendered.text[span.start : span.end].partition(_ANSWER)
        return bool(self._special.search(after))

    @cached_property
    def _usual(self) -> str:
        """What stands after an answer whether or not a turn follows, up to its last special token.

        Most templates end a turn with one token, Cohere's with two; empty where it differs. Some always write the
        beginning of the next turn (Llama 3's first template): that token does not belong to the end.
        """
        texts = [probed(self._template, Messages(turns)) for turns in ((_ASKED, _SAID), (_ASKED, _SAID, _ASKED))]
        last, other = ((text or "").partition(_ANSWER)[2] for text in texts)
        both = self._up_to_next_turn(last[: shared_prefix(last, other)])
        return both[: max((end.end() for end in self._special.finditer(both)), default=0)]

    def _up_to_next_turn(self, text: str) -> str:
        place = text.find(self._opening, 1) if self._opening else -1
        return text[:place] if place > 0 else text

    @cached_property
    def _opening(self) -> str:
        """The special token with which the conversation's first turn begins, after the beginning of the text."""
        text = probed(self._template, Messages((_ASKED, _SAID))) or ""
        bos = self._template.special_token("bos_token")
        found = self._special.match(text.removeprefix(bos).lstrip())
        return found[0] if found else ""

    @cached_property
    def _headers(self) -> frozenset[str]:
        """The special tokens right before a question and right before an answer.

        After an answer they begin the next turn. So they are no end, where the template writes none (GLM Edge,
        Metharme).
        """
        before, _, after = (probed(self._template, Messages((_ASKED, _SAID))) or "").partition(_QUESTION)
        headers = {["", *self._special.findall(text)][-1] for text in (before, after.partition(_ANSWER)[0])}
        return frozenset(headers - {self._template.special_token("eos_token")})
