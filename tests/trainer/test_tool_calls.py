"""Which tokens of conversations with tools are trained («…»), with the templates of the models that have them."""

from collections.abc import Callable
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.templates.choose import use_chat_template
from finetune_trainer.data.tokenization.loss_mask import LossMask
from finetune_trainer.data.tokenization.tokenize import RowTokenizer
from trainer.families import family_tokenizer
from trainer.running import LocalRun, manifest_of

pytestmark = pytest.mark.trainer
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|start|>", "<|end|>", "<|call|>", "<|return|>", "<|channel|>", "<|message|>"),
    *("[INST]", "[/INST]", "[CALLS]", "[RESULT]", "[/RESULT]"),
)
TOOLS = (
    {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object"}}},
)


def calling(*cities: str, content: str | None = None, **more: Any) -> Message:
    calls = [
        {"id": f"call{n:05}", "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        for n, city in enumerate(cities)
    ]
    return Message(role="assistant", content=content, more={"tool_calls": calls, **more})


USER, RAIN = Message(role="user", content="How is Oslo?"), Message(role="tool", content="rain")
ANSWER, THANKS = Message(role="assistant", content="It rains."), Message(role="user", content="Thanks.")
BYE = Message(role="assistant", content="Bye.")
MESSAGES = Messages((USER, calling("Oslo"), RAIN, ANSWER, THANKS, BYE), TOOLS)
QWEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
QWEN_3_5 = "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
LLAMA = '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>'
THINK = "<think>\n\n</think>\n\n"
WRITTEN = {
    "qwen2_5": [QWEN, "It rains.<|im_end|>", "Bye.<|im_end|>"],
    "qwen3": [QWEN, "It rains.<|im_end|>", f"{THINK}Bye.<|im_end|>"],
    "qwen3_instruct_2507": [QWEN, "It rains.<|im_end|>", "Bye.<|im_end|>"],
    "qwen3_vl": [QWEN, "It rains.<|im_end|>", "Bye.<|im_end|>"],
    "qwen3_5_nothink": [f"<tool_call>\n{QWEN_3_5}<|im_end|>", "It rains.<|im_end|>", "Bye.<|im_end|>"],
    "nemotron_3_nano": [f"\n<tool_call>\n{QWEN_3_5}\n<|im_end|>", "It rains.<|im_end|>", "Bye.<|im_end|>"],
    "llama3_1": [LLAMA, "It rains.<|eot_id|>", "Bye.<|eot_id|>"],
    "llama3_2": [LLAMA, "It rains.<|eot_id|>", "Bye.<|eot_id|>"],
    "gptoss": [
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
        "<|channel|>final<|message|>It rains.<|end|>",
        "<|channel|>final<|message|>Bye.<|return|>",
    ],
}


def makers(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def trained(source: str, messages: Messages, loss: Loss = Loss.AUTO) -> list[str]:
    text, spans = LossMask(ChatTemplate(source, TOKENS), SPECIAL, loss)(messages)
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize("name", WRITTEN)
def test_calls_and_answers_are_trained_with_their_end_of_turn(name: str) -> None:
    assert trained(makers(name), MESSAGES) == WRITTEN[name]
    assert trained(makers(name), MESSAGES, Loss.COMPLETION) == WRITTEN[name][-1:]


def test_the_built_in_qwen_marks_what_is_found_in_the_makers() -> None:
    assert trained(template_source("qwen"), MESSAGES) == WRITTEN["qwen2_5"]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3_1", "qwen"])
@pytest.mark.parametrize(
    "turns",
    [
        (USER, calling("Oslo"), RAIN, ANSWER),
        (Message(role="system", content="Be kind."), USER, calling("Oslo"), RAIN, calling("Rome"), RAIN, ANSWER),
        (USER, ANSWER, THANKS, calling("Oslo")),
    ],
)
def test_ids_are_those_of_transformers(name: str, turns: tuple[Message, ...], tiny_model: Path) -> None:
    """Text and masks are ours; the ids must be what `apply_chat_template` gives, with the makers' template too."""
    tokenizer = family_tokenizer("qwen", tiny_model)
    source = template_source(name) if name == "qwen" else makers(name)
    tokenizer.chat_template = source
    if name == "llama3_1":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<|eom_id|>"]})
        tokenizer.bos_token = "<|im_start|>"
    messages = [{"role": turn.role, "content": turn.content, **(turn.more or {})} for turn in turns]
    served = tokenizer.apply_chat_template(
        messages, tools=list(TOOLS), chat_template=makers("qwen2_5") if name == "qwen" else None
    )["input_ids"]

    row = RowTokenizer(tokenizer, Loss.AUTO)(
        Conversation(place=RowLocation(file="a", line=1), messages=Messages(turns, TOOLS))
    )

    assert list(row.ids) == served
    parts = [list(group) for on, group in groupby(zip(row.ids, row.trained, strict=True), key=lambda x: x[1]) if on]
    assert len(parts) == sum(turn.role == "assistant" for turn in turns)


def test_several_calls_and_text_beside_them() -> None:
    messages = Messages((USER, calling("Oslo", "Rome", content="Wait."), RAIN, RAIN, ANSWER), TOOLS)
    both = 'Wait.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n<tool_call>\n'
    for source in (makers("qwen2_5"), template_source("qwen")):
        first, second = trained(source, messages)
        assert first == both + '{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>'
        assert second == "It rains.<|im_end|>"


def test_the_same_call_twice_is_found_at_both_places() -> None:
    messages = Messages((USER, calling("Oslo"), RAIN, calling("Oslo"), RAIN, ANSWER), TOOLS)
    assert trained(makers("qwen3"), messages)[:2] == [QWEN, QWEN]


THINKS_FIRST = (
    "{{ tools | tojson }}{% for m in messages %}{{ '<|start|>' ~ m.role ~ '\n' }}"
    "{% if m.tool_calls %}{{ m.content or '' }}{{ '<call>' ~ (m.tool_calls | tojson) ~ '</call>' }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ '<think>\n' if m.role == 'assistant' and loop.last }}{{ m.content ~ '\n' }}{% endif %}"
    "{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n<think>\n' }}{% endif %}"
)
"""Like Nemotron Nano 2's: the prompt opens the reasoning, calls have none, and the last turn's call ends otherwise."""
NAMED_IN_THE_MIDDLE = (
    "{{ tools | tojson }}{% for m in messages %}{{ '<|start|>' ~ m.role ~ '\n' }}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' ~ call.function.name ~ '|' ~ call.function.arguments.city }}"
    "{% if not (loop.last and m == messages[-1]) %}{{ '|' ~ call.id }}{% endif %}{{ '</call>' }}{% endfor %}"
    "{{ '\n<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
"""Like Apriel's: a call has its id in all turns but the last."""
TOOLS_BEFORE_THE_LAST_USER = (
    "{{ bos_token }}{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% if loop.index0 == ns.last %}{{ '[TOOLS]' ~ (tools | tojson) }}{% endif %}"
    "{{ '[INST]' ~ m.content ~ '[/INST]' }}{% elif m.tool_calls %}{{ '[CALLS]' ~ (m.tool_calls | tojson) ~ eos_token }}"
    "{% elif m.role == 'tool' %}{% if not messages[loop.index0 - 1].tool_calls %}{{ raise_exception('alternate') }}"
    "{% endif %}{{ '[RESULT]' ~ m.content ~ '[/RESULT]' }}{% else %}{{ m.content ~ eos_token }}{% endif %}{% endfor %}"
)
"""Like Mistral's: the tools stand before the last question, and results must follow calls."""


def called(city: str, number: int = 0) -> str:
    return (
        f'[{{"id": "call{number:05}", "type": "function", "function": {{"name": "weather", "arguments": '
        f'{{"city": "{city}"}}}}}}]'
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            THINKS_FIRST,
            [
                f"<call>{called('Oslo')}</call>\n<|end|>",
                "It rains.\n<|end|>",
                f"<call>{called('Rome')}</call>\n<|end|>",
                "Bye.\n<|end|>",
            ],
        ),
        (
            NAMED_IN_THE_MIDDLE,
            [
                "<call>weather|Oslo|call00000</call>\n<|end|>",
                "It rains.\n<|end|>",
                "<call>weather|Rome|call00000</call>\n<|end|>",
                "Bye.\n<|end|>",
            ],
        ),
        (
            TOOLS_BEFORE_THE_LAST_USER,
            [f"[CALLS]{called('Oslo')}</s>", "It rains.</s>", f"[CALLS]{called('Rome')}</s>", "Bye.</s>"],
        ),
    ],
)
def test_calls_are_found_where_the_template_writes_other_turns_around_them(source: str, expected: list[str]) -> None:
    turns = (USER, calling("Oslo"), RAIN, ANSWER, THANKS, calling("Rome"), RAIN, BYE)

    assert trained(source, Messages(turns, TOOLS)) == expected
    assert trained(source, Messages(turns[:4], TOOLS)) == expected[:2]


def test_a_call_that_is_the_last_turn_has_its_own_end() -> None:
    assert trained(THINKS_FIRST, Messages((USER, calling("Oslo")), TOOLS)) == [f"<call>{called('Oslo')}</call><|end|>"]


NULL_WRITTEN = (
    "{{ tools | tojson }}{% for m in messages %}{{ '<|start|>' ~ m.role ~ ': ' }}"
    "{% if m.role != 'assistant' %}{{ m.content }}{% else %}"
    "{{ m.content if m.content != '' }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant: ' }}{% endif %}"
)


def test_a_content_that_is_null_is_not_written_as_none() -> None:
    """GLM's and MiniMax's templates write a null content as text; servers send them an empty one."""
    nullable = {"type": "object", "properties": {"city": {"default": None}}}
    tools = ({"type": "function", "function": {"name": "weather", "parameters": nullable}},)
    said = Message(role="user", content="None or null?")

    first, second = trained(NULL_WRITTEN, Messages((said, calling("Oslo"), RAIN, ANSWER), tools))

    assert first.startswith('[{"id": "call00000"')
    assert second == "It rains.<|end|>"


def test_a_template_that_takes_no_tool_turn_after_a_text() -> None:
    """MiniMax M2: the prompt ends with <think>, which no call without reasoning has."""
    source = (
        "{{ tools | tojson }}{% for m in messages %}{{ '<|start|>' ~ m.role ~ ': ' }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name ~ m.tool_calls[0].function.arguments.city }}"
        "{% elif m.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}{{ raise_exception('no call') }}"
        "{% else %}{{ m.content }}{% endif %}{{ '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant: <think>\n' }}{% endif %}"
    )

    assert trained(source, MESSAGES) == ["weatherOslo<|end|>", "It rains.<|end|>", "Bye.<|end|>"]


PLAIN = "{% for m in messages %}{{ m.role ~ ': ' ~ (m.content or '') ~ eos_token }}{% endfor %}"
WITH_TOOLS = "{{ tools | tojson if tools }}" + PLAIN
ONLY_CALLS = (
    "{% for m in messages %}{{ m.role ~ ': ' }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "messages", "said"),
    [
        (PLAIN, MESSAGES, "the row's tools, which the chat template leaves out"),
        (makers("llama3"), MESSAGES, "the row's tools, which the chat template leaves out"),
        (WITH_TOOLS, MESSAGES, "tool calls, which the chat template leaves out"),
        (PLAIN, Messages(MESSAGES.turns), "tool calls, which the chat template leaves out"),
        (
            PLAIN,
            Messages((USER, Message(role="assistant", content="4", more={"reasoning_content": "2+2"}))),
            "the assistant's reasoning, which the chat template leaves out",
        ),
        (makers("llama3_1"), Messages((USER, calling("Oslo", "Rome")), TOOLS), "single tool-calls at once"),
        *((template_source(name), MESSAGES, "which the chat template leaves out") for name in ("chatml", "llama-3")),
        *((template_source(name), MESSAGES, "refuses") for name in ("llama-2", "mistral", "gemma", "phi")),
    ],
)
@pytest.mark.parametrize("loss", [Loss.AUTO, Loss.ALL])
def test_nothing_of_a_row_is_left_out_in_silence(source: str, messages: Messages, said: str, loss: Loss) -> None:
    with pytest.raises(FaultError) as caught:
        trained(source, messages, loss)
    assert said in caught.value.fault.found


def test_text_beside_calls_is_not_left_out_in_silence() -> None:
    with pytest.raises(FaultError, match="the assistant's text beside its tool calls, which the chat template leaves"):
        trained(ONLY_CALLS, Messages((USER, calling("Oslo", content="Wait."))))


def test_reasoning_is_trained_where_the_template_writes_it() -> None:
    messages = Messages((USER, Message(role="assistant", content="4", more={"reasoning_content": "2+2"})))
    assert trained(makers("qwen3"), messages) == ["<think>\n2+2\n</think>\n\n4<|im_end|>"]


@pytest.mark.parametrize("name", ["chatml", "qwen", "llama-3", "gemma"])
def test_turns_of_weight_0_are_not_trained(name: str, tiny_model: Path) -> None:
    tokenizer = family_tokenizer(name, tiny_model)
    use_chat_template(tokenizer, name)
    refused = Message(role="assistant", content="No.", trained=False)

    def texts(*turns: Message, loss: Loss = Loss.AUTO) -> list[str]:
        row = RowTokenizer(tokenizer, loss)(Conversation(place=RowLocation(file="a", line=1), messages=Messages(turns)))
        pairs = groupby(zip(row.ids, row.trained, strict=True), key=lambda pair: pair[1])
        return [tokenizer.decode([token for token, _ in group]) for on, group in pairs if on]

    both = texts(USER, ANSWER, THANKS, BYE)
    assert texts(USER, refused, THANKS, BYE) == both[1:]
    assert texts(USER, ANSWER, THANKS, refused) == both[:1]
    assert texts(USER, ANSWER, THANKS, refused, loss=Loss.COMPLETION) == []
    assert texts(USER, refused, THANKS, BYE, loss=Loss.COMPLETION) == both[1:]


def test_weight_0_and_the_loss_of_everything_contradict_each_other() -> None:
    refused = Message(role="assistant", content="No.", trained=False)
    with pytest.raises(FaultError, match=r"not to be trained \(of weight 0"):
        trained(template_source("chatml"), Messages((USER, refused)), Loss.ALL)


def test_rows_with_tools_are_checked_and_trained(local_run: Callable[..., LocalRun]) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    turns = [
        {"role": "user", "content": "How is Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ]
    rows = [{"tools": list(TOOLS), "messages": turns}] * 4
    source = WITH_TOOLS.replace("m.content or ''", "m.content or m.tool_calls | tojson")

    run = local_run(rows, dataset={"chatTemplate": source}, training={"maxSteps": 1})
    result = run()

    data = manifest_of(result).data
    assert data is not None
    assert (data.duplicates, data.dropped) == (3, 0)
    with pytest.raises(TrainerError, match=r"train\.jsonl:1: .*found tool calls, which the chat template leaves out"):
        run.changed(dataset={"chatTemplate": WITH_TOOLS})()
