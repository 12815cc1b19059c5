"""Keys and columns that change what a row means: honoured, refused by name, or named as not read."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.examples import Conversation, Example, PromptCompletion, RowLocation
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

pytestmark = pytest.mark.extras

PLACES = StoreRegistry(StorageSpec(), None)
ASKED, ANSWER = {"role": "user", "content": "name a river"}, {"role": "assistant", "content": "the Elbe"}
PREFERENCE = "this is preference data, which says which answer is better or worse"


def scanned(path: Path, *rows: object, text: str | None = None, **spec: Any) -> tuple[DatasetScan, list[Example]]:
    """The pass over a file, made, and the examples that it gave."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) if text is None else text)
    dataset = DatasetSpec.model_validate({"uri": f"file://{path}", **spec})
    scan = DatasetScan(dataset, dataset_objects(dataset, PLACES), PLACES)
    examples = [row_schema.build(row, RowLocation(file=file, line=line)) for row_schema, file, line, row in scan]
    return scan, examples


def problems(path: Path, *rows: object, **spec: Any) -> list[str]:
    scan, _ = scanned(path, *rows, **spec)
    return [f"{item.path}: {item.found}; {item.expected}; {item.remedy}" for item in scan.findings.problems]


@pytest.mark.parametrize(
    "switch",
    [
        *({"train": False}, {"training": False}, {"trainable": 0}, {"loss": False}, {"weight": 0}, {"loss_scale": 0.0}),
        *({"train_on_turn": False}, {"loss_mask": 0}, {"masked": True}),
    ],
)
def test_a_turn_that_is_not_to_be_trained_is_not(switch: dict[str, object], tmp_path: Path) -> None:
    _, [example] = scanned(
        tmp_path / "d.jsonl", {"messages": [ASKED, ANSWER | switch, ASKED, ANSWER | {"train": True}]}
    )

    assert isinstance(example, Conversation)
    assert [turn.trained for turn in example.messages.turns] == [True, False, True, True]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([ASKED, ANSWER | {"loss": "no"}], "messages[1].loss: the text 'no'; 0 or false (the turn is not trained)"),
        ([ASKED, ANSWER | {"loss_weight": 0.5}], "messages[1].loss_weight: the number 0.5; 0 or false"),
        ([ASKED | {"train": True}, ANSWER], "messages[0].train: true in a turn of the role user"),
        ([ASKED | {"masked": False}, ANSWER], "messages[0].masked: false in a turn of the role user"),
        ([ASKED, ANSWER | {"masked": "yes"}], "messages[1].masked: the text 'yes'; true (the turn is not trained) or"),
        ([ASKED, ANSWER | {"mask": True}], "messages[1].mask: true; no such key: some tools train a turn with it"),
        ([ASKED | {"tools": [{"name": "f"}]}, ANSWER], "messages[0].tools: a list of 1; the tools in the row's own"),
        ([ASKED, ANSWER | {"channel": "analysis"}, ANSWER], "messages[1].channel: the text 'analysis'; answers only"),
        (
            [ASKED, ANSWER | {"train_detail": [{"begin_offset": 0}]}],
            "messages[1].train_detail: a list of 1; a turn that",
        ),
        (
            [
                ASKED,
                ANSWER | {"content": [{"type": "text", "text": "a", "train": False}, {"type": "text", "text": "b"}]},
            ],
            "messages[1].content[0].train: false; a turn that is trained whole, or not at all",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(turns: list[object], said: str, tmp_path: Path) -> None:
    [problem] = problems(tmp_path / "d.jsonl", {"messages": turns})
    assert problem.startswith(said)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [ASKED, ANSWER], "chosen": "the Nile", "rejected": "a lake"}, f"chosen: .*{PREFERENCE}"),
        ({"messages": [ASKED, ANSWER], "rejected_response": "a lake"}, f"rejected_response: .*{PREFERENCE}"),
        ({"messages": [ASKED, ANSWER], "label": False}, f"label: false; .*{PREFERENCE}.*dataset.ignoredColumns"),
        ({"prompt": "a", "completion": "b", "kto_tag": True}, f"kto_tag: true; .*{PREFERENCE}"),
        ({"messages": [ASKED, ANSWER], "images": ["a.jpg"]}, "images: a list of 1; rows of text alone"),
        ({"text": "name a river", "answer": "the Elbe"}, r"answer: .*fields: \{prompt: text, completion: answer\}"),
    ],
)
def test_a_column_that_changes_the_meaning_is_refused_by_name(
    row: dict[str, Any], said: str, suffix: str, tmp_path: Path
) -> None:
    [problem] = problems(tmp_path / f"d.{suffix}", row)
    assert re.match(said, problem)

    # The user may know better.
    column = problem.partition(":")[0]
    more = ["rejected"] if column == "chosen" else []
    assert not problems(tmp_path / f"d.{suffix}", row, ignoredColumns=[column, *more])


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a class of its own", "label": 1},
        {"messages": [ASKED, ANSWER], "images": []},
        {"messages": [ASKED, ANSWER], "rejected": None},
    ],
)
def test_a_column_that_changes_nothing_is_only_named(row: dict[str, Any], tmp_path: Path) -> None:
    scan, examples = scanned(tmp_path / "d.jsonl", row)
    assert (len(examples), list(scan.unread)) == (1, [list(row)[1]])


def test_a_mapped_answer_is_the_users_decision(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    scan, [example] = scanned(tmp_path / "d.jsonl", row, fields={"prompt": "prompt", "completion": "chosen"})

    assert isinstance(example, PromptCompletion)
    assert (example.completion, list(scan.unread)) == ("b", ["rejected"])


def test_what_is_not_read_is_named_wherever_it_first_stands(tmp_path: Path) -> None:
    late = {"messages": [ASKED | {"ts": 4}, ANSWER | {"seen": True}], "source": "b"}
    parts = {"messages": [ASKED | {"content": [{"type": "text", "text": "a", "cache": 1}]}, ANSWER | {"ts": None}]}
    scan, _ = scanned(tmp_path / "d.jsonl", *[{"messages": [ASKED, ANSWER]}] * 150, late, parts)

    assert sorted(scan.unread) == ["messages[].content[].cache", "messages[].seen", "messages[].ts", "source"]


def test_keys_that_arrow_padded_are_left_out_of_json_lines(tmp_path: Path) -> None:
    def tool(name: str, properties: dict[str, object]) -> dict[str, object]:
        parameters = {"type": "object", "properties": properties, "required": None, "default": None}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    def call(name: str, **arguments: object) -> dict[str, object]:
        return {"type": "function", "function": {"name": name, "arguments": arguments}}

    text, number = {"type": "string"}, {"type": "integer", "enum": [1, None]}
    row = {
        "tools": [tool("weather", {"city": text, "a": None}), tool("add", {"city": None, "a": number})],
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [call("weather", city="Oslo", a=None)]},
            {"role": "tool", "content": "rain"},
            {"role": "assistant", "content": None, "tool_calls": [call("add", city=None, a=None)]},
            {"role": "tool", "content": "4"},
            ANSWER,
        ],
    }
    _, [example] = scanned(tmp_path / "d.jsonl", row)

    assert isinstance(example, Conversation)
    assert [tool["function"]["parameters"] for tool in example.messages.tools] == [
        {"type": "object", "properties": {"city": text}, "default": None},
        {"type": "object", "properties": {"a": number}, "default": None},
    ]
    arguments = [turn.calls[0]["function"]["arguments"] for turn in example.messages.turns if turn.calls]
    assert arguments == [{"city": "Oslo"}, {"a": None}], "a null that the tool may take stays"


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        {"messages": [ASKED, ANSWER]},
        {"id": 4, "messages": [ASKED, ANSWER]},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "messages": [ASKED, ANSWER]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
    ],
)
def test_an_object_with_turns_is_one_row_however_it_is_printed(
    document: dict[str, Any], indent: int | None, tmp_path: Path
) -> None:
    scan, examples = scanned(tmp_path / "d.json", text=json.dumps(document, indent=indent))
    assert (len(examples), scan.findings.count) == (1, 0)


def test_an_object_with_rows_is_still_a_list_of_rows(tmp_path: Path) -> None:
    rows = [{"messages": [ASKED, ANSWER]}] * 3
    _, examples = scanned(tmp_path / "d.json", text=json.dumps({"data": rows}, indent=1))
    assert len(examples) == 3


def test_a_row_in_a_document_has_the_limit_of_a_line(tmp_path: Path) -> None:
    document = {"messages": [ASKED, *[ANSWER] * 100]}
    limits = {"maxLineBytes": 1024}
    (problem, *_) = problems(tmp_path / "d.json", text=json.dumps(document, indent=1), limits=limits)
    assert "raise dataset.limits.maxLineBytes" in problem


def test_arguments_that_are_encoded_twice_are_said_to_be(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "fly", "arguments": json.dumps(json.dumps({"height": 3}))}}
    [problem] = problems(tmp_path / "d.jsonl", {"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}]})
    assert problem.endswith("they are encoded twice: decode them once, json.loads")


def test_the_remedy_keeps_a_system_message_and_a_history(tmp_path: Path) -> None:
    row = {"system": "be short", "query": "and then", "response": "tea", "history": [["what first", "water"]]}
    [problem] = problems(tmp_path / "d.jsonl", row)
    assert problem.endswith("perhaps with dataset.fields: {system: system, instruction: query, output: response}")

    _, [example] = scanned(tmp_path / "d.jsonl", row, fields={"instruction": "query", "output": "response"})
    assert isinstance(example, Conversation)
    assert [turn.content for turn in example.messages.turns] == ["be short", "what first", "water", "and then", "tea"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"system_prompt": "be kind"}, "system_prompt: the text 'be kind'; no system message in a column that is not"),
        ({"weight": 0}, "weight: the number 0; rows that count alike; remove the rows that are not to be trained"),
        ({"split": "test"}, "split: the text 'test'; training rows; write these rows to a file of their own"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs: an object with the keys enable"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_columns_that_change_the_meaning_with_some_values(
    columns: dict[str, Any], said: str, suffix: str, tmp_path: Path
) -> None:
    row = {"messages": [ASKED, ANSWER]} | columns

    [problem] = problems(tmp_path / f"d.{suffix}", row)

    assert problem.startswith(said)
    assert not problems(tmp_path / f"d.{suffix}", row, ignoredColumns=list(columns))


def test_the_same_columns_with_other_values_are_only_named(tmp_path: Path) -> None:
    columns = {"system_prompt": "be kind", "weight": 1.0, "split": "train", "chat_template_kwargs": {"tools": []}}
    scan, examples = scanned(
        tmp_path / "d.jsonl", {"messages": [{"role": "system", "content": "be kind"}, ASKED, ANSWER]} | columns
    )

    assert len(examples) == 1
    assert list(scan.unread) == list(columns)


def test_rows_that_are_turns_are_no_texts(tmp_path: Path) -> None:
    turns = {"text": "name a river", "role": "prompter"}, {"text": "the Elbe", "role": "assistant"}

    assert problems(tmp_path / "d.jsonl", *turns)[0].startswith("role: the text 'prompter'; a text that stands for")
    assert not problems(tmp_path / "d.jsonl", *turns, schema="text")


@pytest.mark.parametrize(
    "table",
    [
        {"prompt": ["a", "b", "c"], "completion": ["x", "y", "z"]},
        {"messages": [[ASKED, ANSWER], [ASKED, ANSWER]]},
        {"instruction": ["a", "b"], "input": ["", ""], "output": ["c", "d"]},
    ],
)
def test_a_table_written_column_by_column_is_one_problem(table: dict[str, object], tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "d.json", table)

    assert "written column by column" in problem


@pytest.mark.parametrize(
    "row",
    [{"prompt": [ASKED], "completion": ["x"]}, {"text": ["a", "b"]}, {"messages": [ASKED, "b"]}, {"messages": []}],
)
def test_a_row_with_lists_is_not_taken_for_a_table(row: dict[str, object], tmp_path: Path) -> None:
    assert not any("column by column" in problem for problem in problems(tmp_path / "d.json", row))


@pytest.mark.parametrize("answer", [{"content": None}, {}])
def test_a_refusal_beside_no_text_is_named(answer: dict[str, object], tmp_path: Path) -> None:
    (problem,) = problems(
        tmp_path / "d.jsonl", {"messages": [ASKED, {"role": "assistant", "refusal": "No.", **answer}]}
    )

    assert problem.startswith("messages[1].content")
    assert "write the text of refusal as content" in problem


def test_parts_that_say_their_type_by_their_key_are_texts(tmp_path: Path) -> None:
    """As Amazon Bedrock writes them."""
    _, [example] = scanned(
        tmp_path / "d.jsonl",
        {
            "messages": [
                {**ASKED, "content": [{"text": "One."}, {"text": "Two."}]},
                {**ANSWER, "content": [{"text": "So."}]},
            ]
        },
    )

    assert isinstance(example, Conversation)
    assert [message.content for message in example.messages.turns] == ["One.\nTwo.", "So."]


def test_a_system_turn_may_be_empty_and_stays(tmp_path: Path) -> None:
    """Without it some templates would write a system message of their own."""
    _, [example] = scanned(tmp_path / "d.jsonl", {"messages": [{"role": "system", "content": ""}, ASKED, ANSWER]})

    assert isinstance(example, Conversation)
    assert (example.messages.turns[0].role, example.messages.turns[0].content) == ("system", "")
