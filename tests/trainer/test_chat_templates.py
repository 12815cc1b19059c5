"""The built-in chat templates: what they write, which tokens are trained («…»), and what is refused."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import CHAT_TEMPLATES, Loss
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation, Text
from finetune_trainer.data.templates.chat import ChatTemplate
from finetune_trainer.data.templates.choose import use_chat_template
from finetune_trainer.data.tokenization.tokenize import RowTokenizer
from finetune_trainer.data.tokenization.tokens import TokenRow
from finetune_trainer.train.context import Result
from trainer.families import FAMILIES, family_tokenizer, llama_2_tokenizer
from trainer.running import LocalRun, folder_of, manifest_of

pytestmark = pytest.mark.trainer
PLACE = RowLocation(file="chat.jsonl", line=3)
SYSTEM, HI, YO = ("system", "be kind"), ("user", "hi"), ("assistant", "yo man")
BYE, OK = ("user", "bye"), ("assistant", "so long")
ONE_TURN, TWO_TURNS = (HI, YO), (SYSTEM, HI, YO, BYE, OK)
WRITTEN = {
    ("llama-2", ONE_TURN): "<s>[INST] hi [/INST]« yo man </s>»",
    ("llama-2", TWO_TURNS): (
        "<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nhi [/INST]« yo man </s>»<s>[INST] bye [/INST]« so long </s>»"
    ),
    ("llama-3", ONE_TURN): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«yo man<|eot_id|>»"
    ),
    ("llama-3", TWO_TURNS): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«yo man<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nbye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«so long<|eot_id|>»"
    ),
    ("chatml", ONE_TURN): "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yo man<|im_end|>»\n",
    ("chatml", TWO_TURNS): (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        "«yo man<|im_end|>»\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n«so long<|im_end|>»\n"
    ),
    ("mistral", ONE_TURN): "<s>[INST] hi [/INST]« yo man</s>»",
    ("mistral", TWO_TURNS): "<s>[INST] be kind\n\nhi [/INST]« yo man</s>»[INST] bye [/INST]« so long</s>»",
    ("gemma", ONE_TURN): ("<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n«yo man<end_of_turn>»\n"),
    ("gemma", TWO_TURNS): (
        "<bos><start_of_turn>user\nbe kind\n\nhi<end_of_turn>\n<start_of_turn>model\n«yo man<end_of_turn>»\n"
        "<start_of_turn>user\nbye<end_of_turn>\n<start_of_turn>model\n«so long<end_of_turn>»\n"
    ),
    ("qwen", ONE_TURN): (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yo man<|im_end|>»\n"
    ),
    ("qwen", TWO_TURNS): (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        "«yo man<|im_end|>»\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n«so long<|im_end|>»\n"
    ),
    ("phi", ONE_TURN): "<|user|>\nhi<|end|>\n<|assistant|>\n«yo man<|end|>»\n<|endoftext|>",
    ("phi", TWO_TURNS): (
        "<|system|>\nbe kind<|end|>\n<|user|>\nhi<|end|>\n<|assistant|>\n«yo man<|end|>»\n"
        "<|user|>\nbye<|end|>\n<|assistant|>\n«so long<|end|>»\n<|endoftext|>"
    ),
}
MAKERS = {"llama-3": "llama3", "gemma": "gemma", "qwen": "qwen2_5", "phi": "phi3"}
"""The makers' own templates that TRL carries."""


def conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(place=PLACE, messages=Messages(tuple(Message(role=role, content=text) for role, text in turns)))


def shown(row: TokenRow, tokenizer: Any) -> str:
    """The row's text with the trained parts enclosed."""
    parts = []
    for on, group in groupby(zip(row.ids, row.trained, strict=True), key=lambda pair: pair[1]):
        text = tokenizer.decode([token for token, _ in group])
        parts.append(f"«{text}»" if on else text)
    return "".join(parts)


def served(tokenizer: Any, turns: tuple[tuple[str, str], ...], template: str | None = None) -> list[int]:
    """The ids that a server makes of a conversation."""
    messages = [{"role": role, "content": text} for role, text in turns]
    ids: list[int] = tokenizer.apply_chat_template(messages, chat_template=template)["input_ids"]
    return ids


@pytest.fixture
def family(tiny_model: Path) -> Any:
    def make(name: str, chat_template: str | None = None) -> Any:
        tokenizer = family_tokenizer(name, tiny_model)
        use_chat_template(tokenizer, chat_template or name)
        return tokenizer

    return make


def test_every_name_has_a_template_and_its_tests() -> None:
    assert set(CHAT_TEMPLATES) == {name for name, _ in WRITTEN} == set(FAMILIES)
    assert {
        file.name for file in files("finetune_trainer.data.templates").iterdir() if file.name.endswith("jinja")
    } == {f"{name}.jinja" for name in CHAT_TEMPLATES}


@pytest.mark.parametrize(("name", "turns"), WRITTEN)
def test_what_is_written_and_what_is_trained(name: str, turns: tuple[tuple[str, str], ...], family: Any) -> None:
    tokenizer = family(name)

    row = RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns))

    assert shown(row, tokenizer) == WRITTEN[name, turns]
    assert list(row.ids) == served(tokenizer, turns)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_prompt_is_what_a_server_will_send(name: str, family: Any) -> None:
    """What comes before the last answer is the prompt with its generation prompt, token for token."""
    tokenizer = family(name)

    row = RowTokenizer(tokenizer, Loss.COMPLETION)(conversation(*TWO_TURNS))

    messages = [{"role": role, "content": text} for role, text in (SYSTEM, HI, YO, BYE)]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(row.ids[: row.trained.index(True)]) == prompt


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_losses(name: str, family: Any) -> None:
    tokenizer, messages = family(name), conversation(*TWO_TURNS)

    trained = {loss: shown(RowTokenizer(tokenizer, loss)(messages), tokenizer) for loss in Loss}

    assert trained[Loss.ASSISTANT] == trained[Loss.AUTO] == WRITTEN[name, TWO_TURNS]
    assert trained[Loss.COMPLETION].count("«") == 1
    assert WRITTEN[name, TWO_TURNS].endswith(trained[Loss.COMPLETION][trained[Loss.COMPLETION].index("«") :])
    assert trained[Loss.ALL] == "«" + WRITTEN[name, TWO_TURNS].replace("«", "").replace("»", "") + "»"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("turns", [(HI, YO), (("user", " hi "), ("assistant", " yo "), BYE, OK)])
def test_ids_are_those_of_the_makers_template(name: str, turns: tuple[tuple[str, str], ...], family: Any) -> None:
    tokenizer = family(name)
    makers = (files("trl") / "chat_templates" / f"{MAKERS[name]}.jinja").read_text(encoding="utf-8")

    assert list(RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns)).ids) == served(tokenizer, turns, makers)


@pytest.mark.parametrize("name", ["llama-3", "qwen", "phi"])
def test_ids_with_a_system_message_are_those_of_the_makers_template(name: str, family: Any) -> None:
    tokenizer, turns = family(name), (SYSTEM, HI, YO)
    makers = (files("trl") / "chat_templates" / f"{MAKERS[name]}.jinja").read_text(encoding="utf-8")

    assert list(RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns)).ids) == served(tokenizer, turns, makers)


@pytest.mark.parametrize("name", sorted(path.name for path in (files("trl") / "chat_templates").iterdir()))
def test_every_template_that_trl_carries_renders_as_in_transformers(name: str, tiny_model: Path) -> None:
    """The sandbox is that of transformers but for the date. A template of an image-text model gets parts."""
    if not name.endswith(".jinja"):
        return
    source = (files("trl") / "chat_templates" / name).read_text(encoding="utf-8")
    tokenizer = family_tokenizer("llama-2", tiny_model)
    tokenizer.chat_template = source
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in (HI, YO, BYE, OK)]
    if ChatTemplate(source, tokenizer.special_tokens_map).roles_in_parts:
        messages = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in messages]
    try:
        ids = tokenizer.apply_chat_template(messages)["input_ids"]
    except Exception:  # noqa: BLE001 (whatever a template raises)
        with pytest.raises(TrainerError):
            RowTokenizer(tokenizer, Loss.ALL)(conversation(HI, YO, BYE, OK))
        return
    if "strftime_now" in source:
        return
    assert list(RowTokenizer(tokenizer, Loss.ALL)(conversation(HI, YO, BYE, OK)).ids) == ids


def test_end_token_that_swallows_the_line_break_is_trained(family: Any) -> None:
    """Phi's `<|end|>` takes the blanks after it into itself."""
    from tokenizers import AddedToken

    tokenizer = family("phi")
    tokenizer.add_tokens([AddedToken("<|end|>", rstrip=True, special=True)], special_tokens=True)

    row = RowTokenizer(tokenizer, Loss.AUTO)(conversation(HI, YO))

    assert shown(row, tokenizer) == "<|user|>\nhi<|end|><|assistant|>\n«yo man<|end|>»<|endoftext|>"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (
            "<s>[INST] Name the capital of France. [/INST] Paris. </s>",
            "<s> [INST] Name the capital of France. [/INST] Paris. </s>",
        ),
        (
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhi [/INST] yo </s>",
            "<s> [INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhi [/INST] yo </s>",
        ),
    ],
)
def test_prepared_llama_2_text_has_one_bos_and_one_eos(text: str, written: str) -> None:
    """The data of 2023: the format stands in the text already, and Llama's tokenizer would add a second BOS."""
    tokenizer = llama_2_tokenizer()
    assert tokenizer(text)["input_ids"][:2] == [tokenizer.bos_token_id] * 2, "the trap is there"

    row = RowTokenizer(tokenizer, Loss.AUTO)(Text(place=PLACE, text=text))

    assert row.ids[0] == tokenizer.bos_token_id
    assert row.ids[-1] == tokenizer.eos_token_id
    assert (row.ids.count(tokenizer.bos_token_id), row.ids.count(tokenizer.eos_token_id)) == (1, 1)
    assert all(row.trained)
    assert tokenizer.decode(row.ids).replace("<s>[", "<s> [") == written


def test_llama_2_with_sentencepiece_trains_the_answer_with_its_blank_and_eos() -> None:
    tokenizer = llama_2_tokenizer()
    use_chat_template(tokenizer, "llama-2")
    turns = (("system", "Be kind."), ("user", "Name it."), ("assistant", "Paris."), ("user", "é?"), ("assistant", "ü!"))

    row = RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns))

    assert list(row.ids) == served(tokenizer, turns)
    trained = [list(group) for on, group in groupby(zip(row.ids, row.trained, strict=True), key=lambda x: x[1]) if on]
    assert ["".join(tokenizer.convert_ids_to_tokens([i for i, _ in part])) for part in trained] == [
        "▁Paris.▁</s>",
        "▁<0xC3><0xBC><0x21>▁</s>",
    ]


def test_real_tokenizer_with_its_own_and_with_a_built_in_template() -> None:
    from demo.smollm2 import prepare_smollm2
    from finetune_trainer.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(prepare_smollm2())
    turns = (SYSTEM, ("user", "What is 2+2?"), ("assistant", "4, naïvely 🙂"), BYE, OK)
    own = RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns))
    assert list(own.ids) == served(tokenizer, turns)

    use_chat_template(tokenizer, "chatml")

    # SmolLM2's template is ChatML, and finds by rendering what the built-in one marks.
    assert RowTokenizer(tokenizer, Loss.AUTO)(conversation(*turns)) == own
    assert shown(own, tokenizer).count("<|im_end|>»") == 2


@pytest.mark.parametrize(
    ("family_name", "template", "message"),
    [
        ("llama-2", "chatml", "chatml: the template writes <|im_end|>, <|im_start|>, which the model's tokenizer does"),
        ("qwen", "gemma", "gemma: the template writes <end_of_turn>, <start_of_turn>, which"),
        ("qwen", "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ eos_token }}{% endfor %}", "<|user|>"),
        ("qwen", "<bos>{% for m in messages %}{{ m.content }}<eos>{% endfor %}", "writes <bos>, <eos>"),
        ("llama-2", "\n{% for m in messages %}{{ m.content }}", "inline: the template does not compile: line 2: "),
        ("llama-2", "{{ messages | nosuch }}", "does not compile: line 1: No filter named 'nosuch'"),
        ("llama-2", "{{ 'You are helpful.' }}", "leaves out what the user or the assistant says"),
        ("llama-2", "{{ raise_exception('never') }}", "refuses: never, though it was only"),
        ("llama-2", "{% include '/etc/passwd' %}", "refuses: no loader for this environment"),
    ],
)
def test_template_that_is_not_for_this_tokenizer_is_refused(
    family_name: str, template: str, message: str, tiny_model: Path
) -> None:
    tokenizer = family_tokenizer(family_name, tiny_model)

    with pytest.raises(TrainerError) as caught:
        use_chat_template(tokenizer, template)

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message.startswith("spec.dataset.chatTemplate: ")
    assert message in caught.value.message


@pytest.mark.parametrize("name", ["llama-2", "mistral", "gemma"])
@pytest.mark.parametrize("turns", [(YO, HI, OK), (HI, HI, YO), (HI, YO, OK), (HI, SYSTEM, YO), (HI, ("tool", "4"), YO)])
def test_roles_that_do_not_alternate_are_a_problem_of_the_row(name: str, turns: Any, family: Any) -> None:
    with pytest.raises(TrainerError, match=rf"chat\.jsonl:3: .*refuses: {name} takes a system message if any, then"):
        RowTokenizer(family(name), Loss.AUTO)(conversation(*turns))


def test_role_that_the_family_does_not_know_is_a_problem_of_the_row(family: Any) -> None:
    with pytest.raises(TrainerError, match="refuses: phi takes the roles system, user and assistant"):
        RowTokenizer(family("phi"), Loss.AUTO)(conversation(HI, ("tool", "4"), YO))


def test_inline_template_with_and_without_marks(family: Any) -> None:
    plain = "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ eos_token }}{% endfor %}"
    add_generation_prompt = plain + "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    marked = (
        "{% for m in messages %}{{ m.role ~ ': ' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content ~ eos_token }}{% endgeneration %}{% else %}{{ m.content ~ eos_token }}{% endif %}"
        "{% endfor %}"
    )

    written = {}
    for template in (plain, add_generation_prompt, marked):
        tokenizer = family("llama-2", template)
        row = RowTokenizer(tokenizer, Loss.AUTO)(conversation(HI, YO, BYE, OK))
        written[template] = shown(row, tokenizer)

    assert written[add_generation_prompt] == written[marked]
    assert written[marked] == "user: hi</s>assistant: «yo man</s>»user: bye</s>assistant: «so long</s>»"
    # Without a generation prompt a server's prompt ends before the header, and the model is to write that too.
    assert written[plain] == "user: hi</s>«assistant: yo man</s>»user: bye</s>«assistant: so long</s>»"


def test_marks_that_enclose_nothing_of_a_row_are_a_problem_of_the_row(family: Any) -> None:
    thoughtful = (
        "{% for m in messages %}{% if m.content == 'said8' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}"
    )
    with pytest.raises(TrainerError, match=r"chat\.jsonl:3: found no part that the chat template marks"):
        RowTokenizer(family("llama-2", thoughtful), Loss.AUTO)(conversation(HI, YO))


def conversation_rows(count: int = 12) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": f"it is {7 * n}"}]}
        for n in range(count)
    ]


def test_adapter_carries_the_template_it_was_trained_with(local_run: Callable[..., LocalRun], tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    turns = ((HI, YO, BYE, OK), (SYSTEM, HI, YO))
    trained = family_tokenizer("llama-2", tiny_model)
    use_chat_template(trained, "llama-2")

    result = local_run(conversation_rows(), dataset={"chatTemplate": "llama-2"})()

    folder, manifest = folder_of(result), manifest_of(result)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [served(tokenizer, messages) for messages in turns] == [served(trained, messages) for messages in turns]
    # Readers that do not know the tag find comments in its place.
    assert "{%- generation" not in (folder / "chat_template.jinja").read_text()
    assert (
        "| chat template | llama-2, in `chat_template.jinja`: load the tokenizer from this folder |"
        in (folder / "README.md").read_text()
    )
    assert manifest.recipe["dataset"]["chatTemplate"] == "llama-2"
    assert any(file.path.endswith("/chat_template.jinja") for file in manifest.files)


def test_inline_template_is_saved_as_it_is_and_names_another_run(local_run: Callable[..., LocalRun]) -> None:
    inline = "{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}"
    run = local_run(conversation_rows(), dataset={"chatTemplate": inline}, training={"maxSteps": 1})

    first = run()
    other = run.changed(dataset={"chatTemplate": inline.replace("m.content", "' ' ~ m.content")})()
    built_in = run.changed(dataset={"chatTemplate": "mistral"})()

    assert (folder_of(first) / "chat_template.jinja").read_text() == inline
    assert len({first.fingerprint, other.fingerprint, built_in.fingerprint}) == 3
    assert len({weights_of(result) for result in (first, other, built_in)}) == 3
    assert run().outcome is Outcome.REUSED


def test_prepared_text_of_2023_trains(local_run: Callable[..., LocalRun]) -> None:
    """Rows `<s>[INST] … [/INST] … </s>` need no template, and give the model what the chat template gives it."""
    texts = [{"text": f"<s>[INST] what is {n}? [/INST] it is {7 * n} </s>"} for n in range(12)]
    prepared = local_run(texts, training={"maxSteps": 1})
    prepared_result = prepared()

    data = prepared.folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in conversation_rows()))
    rendered = prepared.changed(dataset={"chatTemplate": "llama-2", "loss": "all"})()

    assert weights_of(prepared_result) == weights_of(rendered)


@pytest.mark.parametrize(
    ("rows", "dataset", "message"),
    [
        (conversation_rows(1), {"chatTemplate": "{% for m in messages %}"}, "does not compile: line 1"),
        (conversation_rows(1), {"chatTemplate": "chatml"}, "writes <|im_end|>, <|im_start|>"),
        ([{"text": "water"}], {"chatTemplate": "llama-2"}, "the rows are no conversations"),
        (
            [{"text": "water"}],
            {"chatTemplate": "llama-2", "schema": "text"},
            "rows of schema text are no conversations",
        ),
    ],
)
def test_run_is_refused_before_the_weights_are_read(
    rows: list[dict[str, Any]],
    dataset: dict[str, str],
    message: str,
    local_run: Callable[..., LocalRun],
    tmp_path: Path,
) -> None:
    run = local_run(rows, dataset=dataset)
    model = tmp_path / "without-weights"
    shutil.copytree(run.recipe.model.uri.path, model)
    (model / "model.safetensors").write_bytes(b"not read")

    with pytest.raises(TrainerError) as caught:
        run.changed(model={"uri": f"file://{model}"})()

    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert caught.value.message.startswith("spec.dataset.chatTemplate: ")
    assert message in caught.value.message


def test_every_refused_row_is_named(local_run: Callable[..., LocalRun]) -> None:
    rows = conversation_rows()
    for line in (3, 7):
        rows[line - 1]["messages"].reverse()

    with pytest.raises(TrainerError) as caught:
        local_run(rows, dataset={"chatTemplate": "llama-2"})()

    assert caught.value.reason is FailureReason.DATASET_INVALID
    assert "2 problems in the data (2 x chat template)" in caught.value.message
    assert "train.jsonl:3: found a conversation that the chat template refuses: llama-2 takes" in caught.value.message
    assert "train.jsonl:7: " in caught.value.message


def weights_of(result: Result) -> bytes:
    return (folder_of(result) / "adapter_model.safetensors").read_bytes()
