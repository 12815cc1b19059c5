"""Millions of damaged lines: the check of the data must report every damage, and nothing else may happen.

    .venv/bin/python tests/unit/data/mutations.py [--lines 1000000] [--seed 0]

Rows of every schema are damaged as real files are, and as an attacker would damage them: bytes flipped, cut, inserted;
deep nesting, huge numbers, lone surrogates, byte order marks, NUL, CR, duplicate keys, another type at any key path.
The result of the check is compared with a short oracle: the standard library's parser, made strict, and the rules of
docs/data.md. The same seed makes the same lines on every machine.
"""

import argparse
import contextlib
import copy
import json
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.preflight_report import DataProblem, Unit
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.problems import Fault, Findings
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

LINES_A_FILE = 400
_SYSTEM, _TOOL = {"system", "developer"}, {"tool", "observation", "function"}
_ROLES = {"user", "assistant", "human", "gpt", "chatgpt", "function_call"} | _SYSTEM | _TOOL
_ANSWERING = {"assistant", "gpt", "chatgpt", "function_call"}
_REASONS = ("reasoning_content", "reasoning", "thinking")
_TEXTS = ("tool_call_id", "name", *_REASONS)
_PLACES = StoreRegistry(StorageSpec(), None)


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows of one schema.

    Attributes:
        schema: the schema's name in the recipe.
        row: a valid row.
        texts: text columns that must exist and not be blank.
        optional: text columns that may be missing, null or blank.
        turns: the column of turns, with the keys of role and content.
        fields: `dataset.fields`.
    """

    schema: str
    row: dict[str, Any]
    texts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    turns: tuple[str, str, str] | None = None
    fields: dict[str, str] = field(default_factory=dict)


_TALK = [("system", "Be kind."), ("user", 'Grüße 👍 "q" \\ : {'), ("assistant", "Hello:\n[1, 2]")]
KINDS = (
    Kind(
        "text", {"text": "The quick brown fox: 日本語", "id": 7, "meta": {"tags": ["a", None], "score": 1.5}}, ("text",)
    ),
    Kind("promptCompletion", {"prompt": "2 + 2?", "completion": " 4"}, ("prompt", "completion")),
    Kind(
        "promptCompletion",
        {"question": "Why?", "answer": "Because."},
        ("question", "answer"),
        fields={"prompt": "question", "completion": "answer"},
    ),
    Kind(
        "alpaca",
        {"instruction": "Add.", "input": "1, 2", "output": "3"},
        ("instruction", "output"),
        optional=("input", "system"),
    ),
    Kind(
        "alpaca",
        {"instruction": "Add.", "output": "3", "system": "Be exact."},
        ("instruction", "output"),
        optional=("input", "system"),
    ),
    Kind(
        "messages",
        {"messages": [{"role": role, "content": text} for role, text in _TALK]},
        turns=("messages", "role", "content"),
    ),
    Kind(
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        turns=("conversations", "from", "value"),
    ),
    Kind(
        "messages",
        {
            "messages": [
                {"role": "user", "content": "Oslo?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a": [1, "é"]}'}}],
                },
                {"role": "tool", "content": "rain", "tool_call_id": "c", "name": "f"},
                {"role": "assistant", "content": [{"type": "text", "text": "Rain."}], "weight": 0},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": [{"y": 1}]}}}],
            "system": "Be brief.",
        },
        turns=("messages", "role", "content"),
    ),
    Kind(
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Oslo?"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            ],
            "tools": '[{"name": "f"}]',
        },
        turns=("conversations", "from", "value"),
    ),
)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 10**30, 1e308, "", " \t", "\u2028", "\0", "a\0b", "\ud800", "x\udfff", "ok",
    "assistant", [], {}, [[]], ["a"], [None], {"a": 1}, {"type": "text", "text": "a"},
    [{"type": "text", "text": "a"}],
    [{"role": "user"}], [{"from": "gpt", "value": 1}], "\u202e\x07", "é" * 70,
)  # fmt: skip
_BYTES = (
    b'"', b"\\", b"\\u", b"\\ud83d", b"\\u0000", b"{", b"}", b"[", b"]", b":", b",", b"e", b"E999", b"-", b"+", b".",
    b"0", b"9" * 4299, b"9" * 5000, b"NaN", b"-Infinity", b"null", b"\xff", b"\xc3", b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\x00", b"\t", b"\r", b"\x0b", b" ", b"\xef\xbb\xbf", b"\xc2\x85", b"\x1b[31m", b'"a": 1, ', b"//", b"#", b"'",
)  # fmt: skip
Damage = Callable[[random.Random, bytes, dict[str, Any]], bytes]


def _flip(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    place = dice.randrange(len(line))
    return line[:place] + bytes([dice.randrange(256)]) + line[place + 1 :]


def _cut(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    return line[: dice.randrange(len(line))]


def _drop(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    place = dice.randrange(len(line))
    return line[:place] + line[place + dice.randint(1, 5) :]


def _insert(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    place = dice.randrange(len(line) + 1)
    return line[:place] + dice.choice(_BYTES) + line[place:]


def _around(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    return (
        dice.choice((b"", b" ", b"\xef\xbb\xbf", b"\r", b"["))
        + line
        + dice.choice((b"\r", b",", line, b"]", b"\0", b""))
    )


def _nest(dice: random.Random, line: bytes, _: dict[str, Any]) -> bytes:
    depth = dice.choice((10, 150, 199, 300, 2000, 20_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}")))
    place = line.find(b":") + 1
    return line[:place] + opening * depth + b"1" + closing * (depth - dice.choice((0, 0, 1))) + b',"x":' + line[place:]


def _repeat_key(dice: random.Random, line: bytes, row: dict[str, Any]) -> bytes:
    key = json.dumps(dice.choice(list(row)))
    spelt = dice.choice((key, '"' + "".join(f"\\u{ord(letter):04x}" for letter in key[1:-1]) + '"'))
    return b"{" + f"{spelt}{dice.choice(('', ' '))}: {dice.choice(('1', 'null', '[]'))}, ".encode() + line[1:]


def _retype(dice: random.Random, line: bytes, row: dict[str, Any]) -> bytes:
    """Puts another value at any key path, or removes the key."""
    changed = copy.deepcopy(row)
    holder, key = dice.choice(list(_paths(changed)))
    if dice.random() < 0.1:
        del holder[key]
    else:
        holder[key] = dice.choice(_VALUES)
    return json.dumps(changed, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")


def _rename(dice: random.Random, line: bytes, row: dict[str, Any]) -> bytes:
    changed = copy.deepcopy(row)
    holder, key = dice.choice([(holder, key) for holder, key in _paths(changed) if isinstance(holder, dict)])
    holder[dice.choice((key.upper(), key + " ", "", "\0", "\ud800", "a" * 300, "tools", "tool_calls"))] = holder.pop(
        key
    )
    return json.dumps(changed).encode()


def _whole(dice: random.Random, *_: object) -> bytes:
    """Replaces the whole line by something else."""
    other = (
        b"",
        b" \t\r",
        b"{}",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"NaN",
        b"{",
        b"\xef\xbb\xbf",
        b"\0" * 9,
        b"# no",
        b"<p>",
    )
    return dice.choice(other)


DAMAGES: tuple[Damage, ...] = (
    _flip, _flip, _cut, _drop, _insert, _insert, _around, _nest, _repeat_key, _retype, _retype, _retype, _rename,
    _whole,
)  # fmt: skip


def _paths(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every place in a value, as its container and its key."""
    places = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in places:
        yield value, key
        yield from _paths(value[key])


def damaged_lines(dice: random.Random, kind: Kind, count: int) -> list[bytes]:
    """Yields lines of a kind. Some are valid, and the others have one to three damages."""
    sound = json.dumps(kind.row, ensure_ascii=False).encode()
    lines = []
    for number in range(count):
        line = sound
        # The first rows decide the schema.
        for _ in range(0 if number < 20 else dice.choice((0, 1, 1, 1, 1, 2, 3))):
            line = dice.choice(DAMAGES)(dice, line or sound, kind.row).replace(b"\n", b" ")
        lines.append(line)
    return lines


def is_blank(line: bytes) -> bool:
    """Returns whether a line counts as blank."""
    return not line.strip(b" \t\r")


def _strictly(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a repeated key")
        return dict(pairs)

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def is_good(line: bytes, kind: Kind) -> bool:
    """The oracle: returns whether a line is a valid row of its kind."""

    try:
        row = _strictly(line.strip(b" \t\r").decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict):
        return False
    if kind.turns is None:
        given = [row[name] for name in kind.optional if row.get(name) is not None]
        if kind.schema == "alpaca" and not (_are_pairs(row.get("history") or []) and _are_functions(_tools(row))):
            return False
        return all(_is_text(row.get(name)) for name in kind.texts) and all(_is_text(text, blank=True) for text in given)
    column, role, content = kind.turns
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        return False
    if not all(_is_turn(turn, turn.get(role), turn.get(content)) for turn in turns):
        return False
    system = row.get("system")
    twice = system not in (None, "") and bool(turns) and turns[0][role] in _SYSTEM
    beside = (system is None or _is_text(system, blank=True)) and _are_functions(_tools(row)) and not twice
    return beside and any(turn[role] in _ANSWERING for turn in turns)


def _tools(row: dict[str, Any]) -> Any:
    return row.get("tools") or row.get("functions")


def _are_pairs(value: Any) -> bool:
    pairs = value if isinstance(value, list) else [None]
    return all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_text, pair)) for pair in pairs)


def _is_turn(turn: dict[str, Any], role: Any, content: Any) -> bool:
    if not isinstance(role, str) or role not in _ROLES or turn.get("weight", 1) not in (0, 1, None):
        return False
    if turn.get("tools") or turn.get("functions"):  # the row has them, not a turn
        return False
    if not all(turn.get(key) is None or _is_text(turn[key], blank=True) for key in _TEXTS):
        return False
    if len({reason for key in _REASONS if (reason := turn.get(key))}) > 1:
        return False
    calls = content if role == "function_call" else turn.get("tool_calls") or turn.get("function_call")
    if calls and (role not in _ANSWERING or not _are_functions(calls, called=True)):
        return False
    if calls and not _is_nothing(calls):
        return role == "function_call" or content is None or _is_text(_joined(content), blank=True)
    return role != "function_call" and _is_text(_joined(content), blank=role in (*_TOOL, *_SYSTEM))


def _is_nothing(value: Any) -> bool:
    return (isinstance(value, str) and (not value.strip(" \t\r\n") or not _strictly(value))) or not value


def _joined(content: Any) -> Any:
    """Returns the text of a list of parts that are all text."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    return "\n".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else content


def _are_functions(value: Any, *, called: bool = False) -> bool:
    """Returns whether a value is a list of functions or calls, a single one, or JSON text of these."""
    try:
        if not value or _is_nothing(value):
            # {} is an object without a name; "0" and "false" are nothing at all.
            return not isinstance(value, str) or not value.strip(" \t\r\n") or _strictly(value) in (None, [])
        listed = _strictly(value) if isinstance(value, str) else value
        for item in [listed] if isinstance(listed, dict) else listed:
            function = item["function"] if isinstance(item.get("function"), dict) else item
            arguments = function.get("arguments", function.get("parameters")) if called else {}
            if isinstance(arguments, str):
                arguments = _strictly(arguments) if arguments.strip(" \t\r\n") else {}
            if not isinstance(function["name"], str) or not function["name"].strip():
                return False
            if not isinstance(arguments, dict | None) or not _all_clean([item, arguments]):
                return False
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False
    return True


def _all_clean(value: Any) -> bool:
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    finite = not isinstance(value, float) or math.isfinite(value)
    return finite and all(map(_all_clean, inner)) and (not isinstance(value, str) or _is_text(value, blank=True))


def _is_text(value: object, *, blank: bool = False) -> bool:
    if not isinstance(value, str) or not (value.strip() or blank):
        return False
    return not any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value)


class AllFindings(Findings):
    """Collects every problem."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[DataProblem] = []

    def add(self, fault: Fault, file: str, line: int, byte_offset: int | None = None, unit: Unit = Unit.LINE) -> None:
        super().add(fault, file, line, byte_offset, unit)
        one = Findings()
        one.add(fault, file, line, byte_offset, unit)
        self.all += one.problems


def check_file(folder: Path, kind: Kind, lines: list[bytes], *, mark: bytes, cut: bool) -> Counter[str]:
    """Writes lines to a file, checks the file, and compares the result with the oracle.

    Args:
        folder: folder of the file.
        kind: the kind of the lines.
        lines: the lines.
        mark: bytes before the lines: a byte order mark or nothing.
        cut: True when the last line has no LF.

    Raises:
        AssertionError: the check is wrong. The message has the line.
    """
    path = folder / "damaged.jsonl"
    path.write_bytes(mark + b"\n".join(lines) + (b"" if cut else b"\n"))
    dataset = DatasetSpec.model_validate(
        {"uri": f"file://{path}", "schema": kind.schema, "format": "jsonl", "fields": kind.fields or None}
    )
    scan = DatasetScan(dataset, dataset_objects(dataset, _PLACES), _PLACES)
    findings = scan.findings = AllFindings()
    try:
        found = [line for _, _, line, _ in scan]
    except TrainerError as error:  # the only exception that may leave; but none is due here
        raise AssertionError(error) from error
    if cut and not lines[-1]:
        lines = lines[:-1]
    good = [number for number, line in enumerate(lines, 1) if not is_blank(line) and is_good(line, kind)]
    blank = sum(map(is_blank, lines))
    dropped = {problem.line for problem in findings.all}
    wrong = sorted(set(found) ^ set(good))
    assert not wrong, (
        f"line {wrong[0]}, good: {wrong[0] in good}, found so: {wrong[0] in found}: {lines[wrong[0] - 1]!r}"
    )
    assert found == good
    assert len(good) + len(dropped) + blank == len(lines), (len(good), len(dropped), blank, len(lines))
    assert not dropped & set(good)
    assert scan.blank_lines == blank
    assert findings.count == len(findings.all)
    starts = [len(mark)]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for problem in findings.all:
        _check_problem(problem, lines[problem.line - 1], starts[problem.line - 1])
    return Counter({"lines": len(lines), "good": len(good), "dropped": len(dropped), "blank": blank}) + Counter(
        {str(kind): count for kind, count in findings.kinds.items()}
    )


def _check_problem(problem: DataProblem, line: bytes, start: int) -> None:
    said = str(problem)
    assert problem.byte_offset == start, (said, start, line)
    assert problem.found, (said, line)
    assert problem.expected, (said, line)
    assert problem.remedy, (said, line)
    assert said.startswith(f"damaged.jsonl:{problem.line}")
    assert said.isprintable(), (said, line)
    assert len(said) < 1000, (said, line)
    assert DataProblem.model_validate_json(problem.to_json()) == problem
    if _is_row(line):
        assert problem.path, (said, line)


def _is_row(line: bytes) -> bool:
    """Returns whether the line is a JSON object, so that its problem has a key path."""
    try:
        return isinstance(json.loads(line.decode(), parse_constant=lambda _: 1 / 0), dict)
    except (ValueError, RecursionError, ZeroDivisionError):
        return False


def main() -> None:
    """Checks the lines and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000, help="how many (default: a million)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts, began = Counter[str](), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        for number in range(-(-options.lines // LINES_A_FILE)):
            counts += check_part(Path(folder), options.seed, number)
    for name, count in counts.most_common():
        print(f"{count:>10,}  {name}")
    print(f"{time.process_time() - began:>10,.0f}  seconds of CPU time")


def check_part(folder: Path, seed: int, number: int) -> Counter[str]:
    """Makes and checks one file. Its number and the seed determine its lines."""
    dice = random.Random(f"{seed}/{number}")
    kind = KINDS[number % len(KINDS)]
    try:
        lines = damaged_lines(dice, kind, LINES_A_FILE)
        return check_file(folder, kind, lines, mark=dice.choice((b"", b"\xef\xbb\xbf")), cut=dice.random() < 0.3)
    except BaseException as error:
        error.add_note(f"seed {seed}, file {number}, {kind.schema}")
        raise


if __name__ == "__main__":
    main()
