"""What is trained of a conversation, what a template must not leave out, and how often a conversation is rendered."""

from importlib.resources import files
from typing import Any

import pytest

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.chat import ChatTemplate, Rendered
from finetune_trainer.data.tokenization.loss_mask import LossMask

pytestmark = pytest.mark.extras

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
SPECIAL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *(
        "<filename>",
        "<|end|>",
        "<|user|>",
        "<|assistant|>",
        "<|start|>",
        "<|message|>",
        "<|channel|>",
        "<|return|>",
        "<|call|>",
        "<|eot|>",
    ),
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
MARKED_WITHOUT_END = MARKED.replace("+ '<|im_end|>' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|im_end|>' }}")
ALWAYS_GOES_ON = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
"""Llama 3's first template writes the generation prompt whatever it is asked."""
WITHOUT_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
SYSTEM_BEFORE_A_LAST_USER = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' }}"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ m.content + '[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
"""Mistral Nemo's."""
REFUSES_PLACEHOLDERS = CHATML.replace(
    "{% for m in messages %}",
    "{% for m in messages %}{% if 'PLACEHOLDER' in m['content'] %}{{ raise_exception('no') }}{% endif %}",
)
IN_PARTS = CHATML.replace("m['content']", "(m['content'] | map(attribute='text') | join)")
IN_PARTS_BUT_ANSWERS = CHATML.replace(
    "m['content']", "(m['content'] if m['role'] == 'assistant' else m['content'] | map(attribute='text') | join)"
)


def makers(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def says(role: str, content: str) -> Message:
    return Message(role=role, content=content)


SYSTEM, HI, YO = says("system", "Be kind."), says("user", "hi"), says("assistant", "yo")
FRENCH, BYE, OK = says("system", "Answer in French."), says("user", "bye"), says("assistant", "salut")
TOOL = says("tool", "rain, 12 degrees")


def trained(source: str, *turns: Message, loss: Loss = Loss.AUTO) -> list[str]:
    text, spans = LossMask(ChatTemplate(source, TOKENS), SPECIAL, loss)(Messages(turns))
    return [text[span.start : span.end] for span in spans]


def fault(source: str, *turns: Message, loss: Loss = Loss.AUTO) -> str:
    with pytest.raises(FaultError) as caught:
        trained(source, *turns, loss=loss)
    return caught.value.fault.found


@pytest.mark.parametrize("source", [CHATML, MARKED, MARKED_WITHOUT_END])
def test_an_answer_that_ends_in_a_special_token_keeps_its_end(source: str) -> None:
    answers = [says("assistant", "git add <filename>"), says("assistant", "it ends with <|im_end|>")]

    assert trained(source, HI, answers[0], BYE, answers[1]) == [
        "git add <filename><|im_end|>",
        "it ends with <|im_end|><|im_end|>",
    ]


def test_nothing_after_the_end_of_turn_is_trained() -> None:
    assert trained(ALWAYS_GOES_ON, HI, YO, BYE, OK) == ["yo<|eot_id|>", "salut<|eot_id|>"]


@pytest.mark.parametrize("answer", ["salut", "it ends with <|im_end|>\n", "git add <filename> "])
def test_blanks_after_the_end_of_turn_are_not_trained_where_they_are_marked(answer: str) -> None:
    """TRL's training templates mark them."""
    marked = MARKED.replace("'<|im_end|>' }}{% endgeneration %}", "'<|im_end|>\n' }}{% endgeneration %}")

    assert trained(marked, HI, YO, BYE, says("assistant", answer)) == ["yo<|im_end|>", f"{answer}<|im_end|>"]
    without_end = MARKED_WITHOUT_END.replace("m['content'] }}{% endg", "m['content'] + ' ' }}{% endg")
    assert trained(without_end, HI, YO) == ["yo <|im_end|>"]


@pytest.mark.parametrize("turns", [(SYSTEM, HI, YO, FRENCH, BYE, OK), (HI, YO, FRENCH, BYE, OK), (HI, YO, HI, YO)])
def test_a_prompt_with_another_beginning_ends_at_the_same_place(turns: tuple[Message, ...]) -> None:
    """Muse Glimmer's prompt has a system message of its own until the conversation has one."""
    found = trained(makers("muse_glimmer"), *turns)

    assert found == [f" to=user<|message|>{turn.content}<|eot|>" for turn in turns if turn.role == "assistant"]


@pytest.mark.parametrize(
    ("source", "turns", "lost"),
    [
        (makers("phi3_5"), (HI, YO, TOOL, OK), "role tool (message 3)"),
        (makers("gemma4"), (HI, YO, TOOL, OK), "role tool (message 3)"),
        (makers("gptoss"), (SYSTEM, HI, YO, FRENCH, BYE, OK), "role system (message 4)"),
        (makers("qwen3_vl"), (SYSTEM, HI, YO, FRENCH, BYE, OK), "role system (message 4)"),
        (WITHOUT_SYSTEM, (SYSTEM, HI, YO), "role system (message 1)"),
        (SYSTEM_BEFORE_A_LAST_USER, (SYSTEM, HI, YO), "role system (message 1)"),
    ],
)
@pytest.mark.parametrize("loss", [Loss.AUTO, Loss.COMPLETION, Loss.ALL])
def test_a_turn_that_the_template_leaves_out_is_said(
    source: str, turns: tuple[Message, ...], lost: str, loss: Loss
) -> None:
    assert fault(source, *turns, loss=loss) == f"a text of the {lost}, which the chat template leaves out"


def test_a_probe_that_the_template_refuses_is_not_the_rows_fault() -> None:
    assert trained(REFUSES_PLACEHOLDERS, HI, YO, loss=Loss.ALL) == [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
    ]


@pytest.mark.parametrize("source", [IN_PARTS, IN_PARTS_BUT_ANSWERS])
def test_a_template_gets_content_in_parts_when_it_takes_no_text(source: str) -> None:
    template = ChatTemplate(source, TOKENS)

    assert (
        template.render(Messages((SYSTEM, HI, YO))).text
        == ChatTemplate(CHATML, TOKENS).render(Messages((SYSTEM, HI, YO))).text
    )
    assert trained(source, SYSTEM, HI, YO) == ["yo<|im_end|>"]


class Counting(ChatTemplate):
    """Counts what is rendered."""

    rendered = 0

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> Rendered:
        """See `ChatTemplate`."""
        self.rendered += 1
        return super().render(messages, add_generation_prompt=add_generation_prompt)


def call(city: str) -> Message:
    function: dict[str, Any] = {"name": "weather", "arguments": {"city": city}}
    return Message(role="assistant", content=None, more={"tool_calls": [{"type": "function", "function": function}]})


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        *((name, False) for name in ("qwen2_5", "qwen3", "qwen3_5_nothink", "llama3_1", "gptoss", "lfm2_v2")),
        # gpt-oss repeats the called name after the call: there each turn with calls is rendered by itself.
        *((name, True) for name in ("qwen2_5", "qwen3", "qwen3_5_nothink", "llama3_1", "lfm2_v2")),
    ],
)
def test_a_long_conversation_is_rendered_as_often_as_a_short_one(name: str, calls: bool) -> None:
    tools = ({"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {}}},)

    def renderings(rounds: int) -> int:
        turns: list[Message] = []
        for number in range(rounds):
            turns.append(says("user", f"question {number}"))
            if calls:
                turns += call(f"city {number}"), says("tool", f"rain {number}")
            turns.append(says("assistant", f"answer {number}"))
        template = Counting(makers(name), TOKENS)
        LossMask(template, SPECIAL, Loss.AUTO)(Messages(tuple(turns), tools if calls else ()))
        return template.rendered

    assert renderings(30) == renderings(5)
