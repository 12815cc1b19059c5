"""Reads one turn of a conversation: its role, text, tool calls and reasoning, and all its faults."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from finetune_trainer.data.examples import Message
from finetune_trainer.data.problems import Fault, ProblemKind, absent_key, keys_shown, shown
from finetune_trainer.data.reasoning import KEY, NAMES
from finetune_trainer.data.schemas.text_check import joined_parts, text_fault
from finetune_trainer.data.schemas.tool_calls import read_calls
from finetune_trainer.data.tool_columns import CALLS, TOOLS

ROLES: Final = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    # ShareGPT's names
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
    # OpenAI's newer name, and its older one
    "developer": "system",
    "function": "tool",
}
"""Name of a role in the data -> role in a chat template."""
CALLING: Final = "function_call"
"""LLaMA-Factory's role for an assistant's turn whose text is the tool call as JSON."""
_TEXTS: Final = ("tool_call_id", "name", *NAMES)
"""Further keys that templates read; each is a text. Any other key is not read, and named."""
_WEIGHTS: Final = ("weight", "loss_weight", "loss_scale")
"""Keys of an assistant's turn: OpenAI's and ms-swift's. With the value 0 the turn is not trained."""
_SWITCHES: Final = ("train", "training", "trainable", "train_on_turn", "loss", "loss_mask")
"""Keys that say whether a turn is trained: axolotl's, LLaMA-Factory's and ms-swift's."""
_MASKED: Final = "masked"
"""torchtune's key of a turn that is not trained."""
_MASK: Final = "mask"
"""A key that says the one in some tools, and the other in others."""
_CHANNEL: Final = "channel"
"""The key of gpt-oss's channels; what an answer says outside `final` is its reasoning."""
_DETAIL: Final = "train_detail"
"""axolotl's key of the parts of a turn that are trained apart."""
_FLAGS: Final = (*_WEIGHTS, *_SWITCHES, _MASKED)
_KNOWN: Final = frozenset({*CALLS, *TOOLS, *_TEXTS, *_FLAGS, _DETAIL, _MASK, _CHANNEL})
_KNOWN_OF_PART: Final = frozenset({"type", "text", *_FLAGS})
_MOST_UNREAD = 1000


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """The keys of a turn's parts.

    Attributes:
        role: the key of the role.
        content: the key of the text.
        roles: the names of the valid roles, for messages.
        unread: takes the key paths that are not read, without the numbers of lists.
    """

    role: str
    content: str
    roles: str
    unread: dict[str, None]

    def read(self, turn: object, path: str) -> tuple[Message | None, list[Fault]]:
        """The message of a turn, and its faults.

        The message is None if the turn is not an object, has no valid role, or has content that is not text.

        Args:
            turn: an element of the list of turns.
            path: its key path, for messages.
        """
        if not isinstance(turn, dict):
            expected = f"an object with {self.role} and {self.content}"
            remedy = f'write {{"{self.role}": …, "{self.content}": …}}'
            return None, [Fault(kind=ProblemKind.TYPE, path=path, found=shown(turn), expected=expected, remedy=remedy)]
        said, content = turn.get(self.role), f"{path}.{self.content}"
        more, faults = _more(turn, path)
        text = joined_parts(turn.get(self.content))
        role = ROLES.get(said) if isinstance(said, str) else None
        at = next((key for key in CALLS if turn.get(key)), None)
        if said == CALLING:
            role, at, text = "assistant", self.content, None
        calls, wrong = read_calls(turn.get(at), f"{path}.{at}") if at is not None else ([], [])
        faults += wrong
        if calls:
            more["tool_calls"] = calls
        if role is None:
            faults.insert(0, self._no_role(turn, path))
        elif at is not None and role != "assistant":
            faults.append(_not_the_assistants(f"{path}.{at}", role))
        if said == CALLING:
            if not calls and not wrong:
                faults.append(_no_call(turn, self.content, content))
        elif self.content not in turn:
            if not calls and not wrong:
                faults.append(_with_refusal(turn, absent_key(turn, self.content, path=content)))
        elif not ((calls or wrong) and text is None):
            # The result of a tool may be empty, and so may a system message, which then takes the place of a template's
            # own. A turn with a call needs no text.
            wrong_text = text_fault(text, content, may_be_empty=bool(calls) or role in ("tool", "system"))
            faults += [_with_refusal(turn, wrong_text)] if wrong_text else []
        trained, wrong_switches = _trained(turn, path, role)
        faults += [*wrong_switches, *_misplaced(turn, path, role)]
        faults += _part_faults(turn.get(self.content), content)
        self._note_unread(turn, path)
        if role is None or (text is not None and not isinstance(text, str)):
            return None, faults
        return Message(role=role, content=text, more=more or None, trained=trained), faults

    def _note_unread(self, turn: Mapping[str, Any], path: str) -> None:
        """Notes the keys of a turn and of its parts that are not read; null counts as absent."""
        if len(self.unread) >= _MOST_UNREAD:
            return
        column = path.partition("[")[0]
        known = {self.role, self.content}
        for key in turn.keys() - _KNOWN - known:
            if turn[key] is not None:
                self.unread[f"{column}[].{key}"] = None
        parts = turn.get(self.content)
        for part in parts if isinstance(parts, list) else ():
            for key in part.keys() - _KNOWN_OF_PART if isinstance(part, dict) else ():
                if part[key] is not None:
                    self.unread[f"{column}[].{self.content}[].{key}"] = None

    def _no_role(self, turn: dict[str, Any], path: str) -> Fault:
        role, there = turn.get(self.role), self.role in turn
        return Fault(
            kind=ProblemKind.ROLE,
            path=f"{path}.{self.role}",
            found=shown(role) if there else f"no {self.role}; keys: {keys_shown(turn)}",
            expected=self.roles,
            remedy=_role_remedy(role) if there else "name the key of the role in dataset.fields.role",
        )


def _with_refusal(turn: Mapping[str, Any], fault: Fault) -> Fault:
    """The fault of a turn without text; the answers of OpenAI's API have a refusal beside their text."""
    if not isinstance(turn.get("refusal"), str):
        return fault
    return replace(fault, remedy="an answer that refuses is an answer: write the text of refusal as content")


def system_turn(row: Mapping[str, object], column: str) -> tuple[Message, ...]:
    """The system message of a row that has one in its own column; empty if the column is missing or blank."""
    text = row.get(column)
    return (Message(role="system", content=text),) if isinstance(text, str) and text.strip() else ()


def _more(turn: Mapping[str, Any], path: str) -> tuple[dict[str, Any], list[Fault]]:
    """The turn's further keys that templates read, and their faults."""
    more = {key: turn[key] for key in _TEXTS if turn.get(key) is not None}
    faults = [fault for key in more if (fault := text_fault(more[key], f"{path}.{key}", may_be_empty=True))]
    reasons = {name: reason for name in NAMES if (reason := more.pop(name, None))}
    if reasons:
        more[KEY] = next(iter(reasons.values()))
        if any(reason != more[KEY] for reason in reasons.values()):
            faults.append(_two_reasons(reasons, path))
    return more, faults


def _trained(turn: Mapping[str, Any], path: str, role: str | None) -> tuple[bool, list[Fault]]:
    """Whether the turn is trained if it is the assistant's, and what is wrong with the keys that say so."""
    trained, faults = True, []
    for key in _FLAGS:
        value = turn.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            faults.append(
                Fault(
                    kind=ProblemKind.TYPE,
                    path=f"{path}.{key}",
                    found=shown(value),
                    expected="true (the turn is not trained) or false"
                    if key == _MASKED
                    else "0 or false (the turn is not trained), 1 or true",
                    remedy="write 0 or 1, or remove the key",
                )
            )
        elif bool(value) is (key == _MASKED):
            trained = False
        elif key not in _WEIGHTS and role not in (None, "assistant"):
            faults.append(
                Fault(
                    kind=ProblemKind.ROLE,
                    path=f"{path}.{key}",
                    found=f"{shown(value)} in a turn of the role {role}",
                    expected="only turns of the assistant that are to be trained",
                    remedy="remove the key, or use dataset.loss: all",
                )
            )
    if turn.get(_DETAIL):
        faults.append(_parts_apart(f"{path}.{_DETAIL}", turn[_DETAIL]))
    if turn.get(_MASK) is not None:
        faults.append(
            Fault(
                kind=ProblemKind.TYPE,
                path=f"{path}.{_MASK}",
                found=shown(turn[_MASK]),
                expected="no such key: some tools train a turn with it, others do not",
                remedy="write weight: 0 in the assistant's turns that are not to be trained, and remove the key",
            )
        )
    return trained, faults


def _misplaced(turn: Mapping[str, Any], path: str, role: str | None) -> list[Fault]:
    """The faults of keys that belong elsewhere: the row's tools, and reasoning as a turn of its own."""
    faults = [
        Fault(
            kind=ProblemKind.SCHEMA,
            path=f"{path}.{key}",
            found=shown(turn[key]),
            expected="the tools in the row's own column",
            remedy=f'write them beside the turns, {{"tools": […], "{path.partition("[")[0]}": […]}}',
        )
        for key in TOOLS
        if turn.get(key)
    ]
    channel = turn.get(_CHANNEL)
    if role == "assistant" and channel not in (None, "", "final") and not any(map(turn.get, CALLS)):
        faults.append(
            Fault(
                kind=ProblemKind.SCHEMA,
                path=f"{path}.{_CHANNEL}",
                found=shown(channel),
                expected="answers only, of the channel 'final'",
                remedy="write the text as reasoning_content of the answer that follows",
            )
        )
    return faults


def _part_faults(content: object, path: str) -> list[Fault]:
    """The fault of a content of which a part is not to be trained; at most one."""
    for number, part in enumerate(content) if isinstance(content, list) else ():
        for key in _FLAGS if isinstance(part, dict) else ():
            if part.get(key) is not None and part[key] not in (1, True):
                return [_parts_apart(f"{path}[{number}].{key}", part[key])]
    return []


def _parts_apart(path: str, value: object) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value),
        expected="a turn that is trained whole, or not at all",
        remedy="write the parts as turns of their own, or remove the key",
    )


def _two_reasons(reasons: Mapping[str, object], path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=f"{path}.{list(reasons)[1]}",
        found=f"another text than under {next(iter(reasons))}",
        expected=f"the reasoning once, under one of {', '.join(NAMES)}",
        remedy="remove one of the keys",
    )


def _role_remedy(role: object) -> str:
    if isinstance(role, str) and role.strip().lower() in ROLES:
        return f"write {role.strip().lower()!r}"
    return "write the role that it stands for"


def _not_the_assistants(path: str, role: str) -> Fault:
    return Fault(
        kind=ProblemKind.ROLE,
        path=path,
        found=f"tool calls in a turn of the role {role}",
        expected="tool calls of the assistant only",
        remedy="write the role 'assistant', or remove the calls",
    )


def _no_call(turn: Mapping[str, Any], key: str, path: str) -> Fault:
    if key not in turn:
        return absent_key(turn, key, path)
    return Fault(
        kind=ProblemKind.EMPTY,
        path=path,
        found=shown(turn[key]),
        expected='a call, {"name": …, "arguments": {…}}',
        remedy="remove the row, or fill it in",
    )
