"""Tools, calls and what else may stand in a conversation: the forms that data sets have, and what may be wrong."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.examples import Conversation, Message, Messages
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

PLACES = StoreRegistry(StorageSpec(), None)
WEATHER = {"name": "weather", "description": "of a city", "parameters": {"properties": {"city": {"type": "string"}}}}
TOOLS = ({"type": "function", "function": WEATHER},)
ASKED = {"role": "user", "content": "Oslo?"}
CALL: dict[str, Any] = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
AS_TEXT = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
RAIN = {"role": "tool", "content": "rain"}
ANSWER = {"role": "assistant", "content": "It rains."}
EXPECTED = Messages(
    (
        Message(role="user", content="Oslo?"),
        Message(role="assistant", content=None, more={"tool_calls": [CALL]}),
        Message(role="tool", content="rain"),
        Message(role="assistant", content="It rains."),
    ),
    TOOLS,
)


def calling(call: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


def row(call: object = CALL, tools: object = list(TOOLS), **more: object) -> dict[str, object]:
    return {"messages": [ASKED, calling(call), RAIN, ANSWER], "tools": tools, **more}


def conversations(path: Path, *rows: object, **spec: Any) -> list[Messages]:
    if rows:
        path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    dataset = DatasetSpec.model_validate({"uri": f"file://{path}", **spec})
    examples = list(read_examples(dataset, dataset_objects(dataset, PLACES), PLACES))
    assert all(isinstance(example, Conversation) for example in examples)
    return [example.messages for example in examples if isinstance(example, Conversation)]


def one(path: Path, line: object, **spec: Any) -> Messages:
    [messages] = conversations(path, line, **spec)
    return messages


SHAREGPT = {
    "conversations": [
        {"from": "human", "value": "Oslo?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ],
    "tools": json.dumps([WEATHER]),
}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(row(), id="as templates have it"),
        pytest.param(row(AS_TEXT), id="arguments as text, OpenAI's"),
        pytest.param(row(CALL["function"]), id="a bare function"),
        pytest.param(row(tools=[WEATHER]), id="bare tools"),
        pytest.param(row(tools=json.dumps(TOOLS)), id="tools as text"),
        pytest.param({"messages": [ASKED, calling(CALL, name=None), RAIN, ANSWER], "tools": TOOLS}, id="nulls beside"),
        pytest.param(SHAREGPT, id="LLaMA-Factory's ShareGPT"),
        pytest.param(
            {
                "messages": [
                    ASKED,
                    {"role": "assistant", "content": None, "function_call": AS_TEXT["function"]},
                    RAIN | {"role": "function"},
                    ANSWER,
                ],
                "functions": [WEATHER],
            },
            id="OpenAI's of 2023",
        ),
    ],
)
def test_calls_of_every_form_become_the_one_that_templates_know(line: object, tmp_path: Path) -> None:
    assert one(tmp_path / "d.jsonl", line) == EXPECTED


def test_typed_columns_have_nulls_where_an_object_lacks_a_key(tmp_path: Path) -> None:
    """Arrow gives every object of a column the keys of all; JSON's own nulls stay."""
    clock = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
    rows = [row(), row(clock)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    found = conversations(tmp_path / "d.parquet")
    assert found[0] == EXPECTED
    assert found[1].turns[1].calls == [clock]

    null = {"type": "function", "function": {"name": "weather", "arguments": {"city": None}}}
    assert one(tmp_path / "d.jsonl", row(null)).turns[1].calls == [null]


def test_several_calls_keep_their_order_and_ids(tmp_path: Path) -> None:
    calls = [{"id": f"call{n}", **AS_TEXT} for n in range(3)]
    answers = [{"role": "tool", "content": str(n), "tool_call_id": f"call{n}", "name": "weather"} for n in range(3)]
    turns = [ASKED, {"role": "assistant", "content": "Wait.", "tool_calls": calls}, *answers, ANSWER]
    messages = one(tmp_path / "d.jsonl", {"messages": turns})
    assert messages.turns[1].content == "Wait."
    assert [call["id"] for call in messages.turns[1].calls] == ["call0", "call1", "call2"]
    assert [turn.more for turn in messages.turns[2:5]] == [
        {"tool_call_id": f"call{n}", "name": "weather"} for n in range(3)
    ]


BAD_CALL = "messages[1].tool_calls[0]"
NESTED = json.loads('{"a":' * 500 + "1" + "}" * 500)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (row("weather"), f"{BAD_CALL}: found the text 'weather', expected an object"),
        (row({"id": "1"}), f"{BAD_CALL}: found an object with the keys id, expected the name of a function"),
        (row({"function": {"name": 5}}), f"{BAD_CALL}: found the number 5, expected the name of a function"),
        (row({"function": {"name": "f", "arguments": "{x"}}), f"{BAD_CALL}.function.arguments: found the text '{{x'"),
        (row({"function": {"name": "f", "arguments": "[1]"}}), f"{BAD_CALL}.function.arguments: found a list of 1"),
        (row({"name": "f", "arguments": 3}), f"{BAD_CALL}.arguments: found the number 3"),
        (
            row({"name": "f", "arguments": {"a": ["\ud800"]}}),
            f"{BAD_CALL}.arguments.a[0]: found the character U+0000 or",
        ),
        (
            row({"name": "f", "arguments": '{"a\\u0000": 1}'}),
            f"{BAD_CALL}.arguments.a\\x00: found the character U+0000",
        ),
        (row(tools="weather"), "tools: found the text 'weather', no JSON: 'weather' at column 1, expected a list of"),
        (row({"name": "f", "arguments": '{"a": 1, "a": 2}'}), f"{BAD_CALL}.arguments.a: found the same key twice"),
        (
            row({"name": "f", "arguments": '{"a": NaN}'}),
            f"{BAD_CALL}.arguments: found the text '{{\"a\": NaN}}', no JSON",
        ),
        (
            row({"name": "f", "arguments": '{"a": 1e999}'}),
            f"{BAD_CALL}.arguments.a: found the number inf, expected what",
        ),
        (row({"name": "f", "arguments": NESTED}), "found objects or lists nested too deeply, expected less than 100"),
        (row(tools=[WEATHER, 7]), "tools[1]: found the number 7, expected an object"),
        (row(tools=[{"type": "function"}]), "tools[0]: found an object with the keys type, expected the name of"),
        ({"messages": [calling(CALL, role="user"), ANSWER]}, "messages[0].tool_calls: found tool calls in a turn of"),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "messages[1].content: found an empty text"),
        ({"messages": [ASKED, {"role": "assistant"}]}, "messages[1].content: found the keys role"),
        ({"messages": [ASKED, {"role": "assistant", "function_call": {}, "content": None}]}, "found null"),
        (
            {"messages": [ASKED, ANSWER | {"function_call": {"x": 1}}]},
            "messages[1].function_call: found an object with",
        ),
        ({"messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": "[]"}]}, "found an empty text"),
        ({"conversations": [{"from": "function_call", "value": "[]"}]}, "conversations[0].value: found the text '[]'"),
        ({"messages": [ASKED, ANSWER | {"name": 5}]}, "messages[1].name: found the number 5, expected text"),
        ({"messages": [ASKED, ANSWER | {"weight": 2}]}, "messages[1].weight: found the number 2, expected 0"),
        (
            {"conversations": [{"from": "function_call", "value": "f()"}]},
            "conversations[0].value: found the text 'f()'",
        ),
        ({"messages": [{"role": "system", "content": "s"}, ASKED, ANSWER], "system": "t"}, "one system message"),
        ({"messages": [ASKED, ANSWER], "system": ["t"]}, "system: found a list of 1, expected text"),
        ({"instruction": "i", "output": "o", "system": 5}, "system: found the number 5, expected text"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(line: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        conversations(tmp_path / "d.jsonl", line)
    assert said in caught.value.message, caught.value.message


@pytest.mark.parametrize(
    "value", [dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), b"\0", Decimal("1.5"), float("nan")]
)
def test_what_a_typed_column_holds_and_json_cannot_say_is_named(value: object, tmp_path: Path) -> None:
    for name, line in {
        "call": row({"type": "function", "function": {"name": "f", "arguments": {"since": value}}}),
        "tool": row(tools=[{"name": "f", "since": value}]),
    }.items():
        pq.write_table(pa.Table.from_pylist([line]), tmp_path / f"{name}.parquet")
        with pytest.raises(TrainerError, match=r"since: found .*, expected what JSON can say"):
            conversations(tmp_path / f"{name}.parquet")


def test_no_tools_are_written_in_several_ways(tmp_path: Path) -> None:
    plain = {"messages": [ASKED, ANSWER]}
    nothings: tuple[object, ...] = ("", "[]", "null", [], None)
    for nothing in nothings:
        answer = {"messages": [ASKED, ANSWER | {"tool_calls": nothing}], "tools": nothing}
        assert one(tmp_path / "d.jsonl", answer) == one(tmp_path / "d.jsonl", plain)


def test_a_developer_is_read_as_the_system(tmp_path: Path) -> None:
    line = {"messages": [{"role": "developer", "content": "Be kind."}, ASKED, ANSWER]}
    assert one(tmp_path / "d.jsonl", line).turns[0] == Message(role="system", content="Be kind.")
    with pytest.raises(TrainerError, match="one system message"):
        one(tmp_path / "d.jsonl", line | {"system": "s"})


def test_parts_of_text_are_joined_as_a_server_joins_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "How is"}, {"type": "text", "text": "Oslo?"}]
    assert one(tmp_path / "d.jsonl", {"messages": [{"role": "user", "content": parts}, ANSWER]}).turns[0] == Message(
        role="user", content="How is\nOslo?"
    )


def test_weight_0_is_a_turn_that_is_not_trained(tmp_path: Path) -> None:
    line = {"messages": [ASKED, ANSWER | {"weight": 0}, ASKED, ANSWER | {"weight": 1}]}
    assert [turn.trained for turn in one(tmp_path / "d.jsonl", line).turns] == [True, False, True, True]


@pytest.mark.parametrize(
    ("line", "spec", "system"),
    [
        ({"messages": [ASKED, ANSWER], "system": "Be kind."}, {}, "Be kind."),
        ({"conversations": SHAREGPT["conversations"], "system": "Be kind."}, {}, "Be kind."),
        ({"instruction": "i", "output": "o", "system": "Be kind."}, {}, "Be kind."),
        ({"messages": [ASKED, ANSWER], "rule": "Be kind."}, {"fields": {"system": "rule"}}, "Be kind."),
        ({"messages": [ASKED, ANSWER], "system": ""}, {}, None),
        ({"messages": [ASKED, ANSWER], "system": None}, {}, None),
        ({"instruction": "i", "output": "o", "system": " "}, {}, None),
    ],
)
def test_system_message_in_a_column_of_its_own(line: object, spec: Any, system: str | None, tmp_path: Path) -> None:
    first = one(tmp_path / "d.jsonl", line, **spec).turns[0]
    assert (first.content if first.role == "system" else None) == system


SYSTEM = {"role": "system", "content": "Be kind."}


def test_prompt_and_completion_of_turns_train_the_completion_only(tmp_path: Path) -> None:
    line = {"prompt": [SYSTEM, ASKED, ANSWER, ASKED], "completion": [ANSWER], "tools": TOOLS}
    messages = one(tmp_path / "d.jsonl", line)
    assert [(turn.role, turn.trained) for turn in messages.turns] == [
        ("system", True), ("user", True), ("assistant", False), ("user", True), ("assistant", True)
    ]  # fmt: skip
    assert messages.tools == TOOLS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": [ASKED], "completion": [ASKED]}, "completion: found 1 messages, none of the assistant"),
        ({"prompt": [ASKED | {"role": "x"}], "completion": [ANSWER]}, "prompt[0].role: found the text 'x'"),
        ({"prompt": [], "completion": [ANSWER]}, "prompt: found a list of 0"),
        ({"prompt": [ASKED], "completion": [ANSWER], "tools": 7}, "tools: found the number 7"),
    ],
)
def test_what_is_wrong_in_turns_of_a_prompt_is_said(line: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        conversations(tmp_path / "d.jsonl", line)
    assert caught.value.message.count(said) == 1, caught.value.message


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (row(AS_TEXT, id=7), True),
        (row({**CALL, "function": {"name": "weather", "arguments": {"city": "Rome"}}}), False),
        (row(tools=[WEATHER | {"name": "climate"}]), False),
        (row(system="Be kind."), False),
        ({"messages": [ASKED, calling(CALL), RAIN, ANSWER | {"weight": 0}], "tools": TOOLS}, False),
    ],
)
def test_rows_repeat_when_they_train_the_same(other: dict[str, object], same: bool, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (row(), other)))
    dataset = DatasetSpec(uri=f"file://{path}")
    scan = DatasetScan(dataset, dataset_objects(dataset, PLACES), PLACES)
    assert len(list(scan)) == 2
    assert scan.duplicates.count == same
