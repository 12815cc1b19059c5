"""Where templates run: the same text on every day, no way to Python, and an end to what would never end."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from finetune_trainer.contract.recipe.dataset import CHAT_TEMPLATES, Loss
from finetune_trainer.data.examples import Message, Messages
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.templates.builtin import template_source
from finetune_trainer.data.templates.chat import ChatTemplate, for_servers, require_syntax, template_of
from finetune_trainer.data.templates.trial import Bounds, Trial, TrialResult, try_template

pytestmark = pytest.mark.extras

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = Messages((Message(role="user", content="hi"), Message(role="assistant", content="yo")))
PLAIN = "{% for m in messages %}{{ m.content ~ eos_token }}{% endfor %}"


def rendered(source: str) -> str:
    return ChatTemplate(source, TOKENS).render(MESSAGES).text


def test_the_day_in_a_template_is_always_the_same() -> None:
    assert rendered("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


@pytest.mark.parametrize(
    "attempt",
    [
        "{{ ''.__class__ }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ strftime_now.__self__ }}",
        "{{ strftime_now.__func__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ ''|attr('__class__') }}",
        "{{ ('%s' | format('x')).format.__self__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ self.__init__ }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace.__init__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% include 'x' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ lipsum() }}",
    ],
)
def test_no_way_to_python(attempt: str) -> None:
    """Refused, or nothing at all: an attribute that is not given counts as undefined."""
    try:
        text = rendered(attempt)
    except FaultError:
        return
    assert text == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}", "does not compile: line 1: Unexpected end of template"),
        ("\n\n{{ a b }}", "does not compile: line 3: expected token 'end of print statement'"),
        ("{{ " + "(" * 9999, "does not compile: it is nested too deeply"),
        ("{% generation %}", "does not compile: line 1: "),
    ],
)
def test_syntax_error_says_where(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        require_syntax(source)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        ChatTemplate(source, TOKENS)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("a{% generation %}b{% endgeneration %}c", ["b"]),
        ("a{% generation %}b{% endgeneration %}{% generation %}c{% endgeneration %}d", ["bc"]),
        ("a{% generation %}b{% generation %}c{% endgeneration %}{% endgeneration %}d", ["bc"]),
        ("{% macro f() %}{% generation %}b{% endgeneration %}{% endmacro %}a{{ f() }}c{{ f() }}", ["b", "b"]),
        ("{% set x %}{% generation %}b{% endgeneration %}{% endset %}a{{ x }}", ["b"]),
        ("{# {% generation %} #}a", []),
    ],
)
def test_marks_are_found_where_their_text_lands(source: str, parts: list[str]) -> None:
    template = ChatTemplate(source, TOKENS)

    found = template.render(MESSAGES)

    assert [found.text[span.start : span.end] for span in found.marked] == parts
    assert template.has_marks is bool(parts)
    assert "\0" not in found.text


@pytest.mark.parametrize(
    "source",
    [
        *map(template_source, CHAT_TEMPLATES),
        "{#- has {% generation %} in its head -#}\n{%- generation -%} a {%- endgeneration -%}\n b",
        "x\n  {% generation %}\n  a\n  {%+ endgeneration %}\n  b",
        "x {%- generation +%}\n a {% endgeneration -%} \n b",
    ],
)
def test_template_for_servers_renders_the_same_without_the_tag(source: str) -> None:
    served = ChatTemplate(for_servers(source), TOKENS)

    assert served.render(MESSAGES).text == ChatTemplate(source, TOKENS).render(MESSAGES).text
    assert not served.has_marks


@pytest.mark.parametrize(
    ("own", "found"),
    [(None, None), ("", None), (PLAIN, PLAIN), ({"default": PLAIN, "tool_use": "x"}, PLAIN), ({"rag": "x"}, None)],
)
def test_a_models_own_template(own: Any, found: str | None) -> None:
    assert template_of(own) == found


def tried(source: str, *, rows: Sequence[Messages] = (MESSAGES,) * 3, **bounds: int) -> TrialResult:
    trial = Trial(
        source=source,
        special_tokens=TOKENS,
        special=["<s>", "</s>"],
        known=["<s>", "</s>"],
        loss=Loss.AUTO,
        rows=rows,
    )
    return try_template(trial, Bounds(**bounds))


@pytest.mark.parametrize(
    "endless",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' | center(3000000000) }}",
        "{% set ns = namespace(x='aaaa') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    ],
)
def test_template_without_end_is_ended(endless: str) -> None:
    found = tried(PLAIN + endless, cpu_seconds=2)

    assert found.problem is not None
    assert re.search("took more than 2 seconds or 512 MiB|never finishes: it loops", found.problem)


@pytest.mark.parametrize(
    "endless",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' | center(3000000000) }}",
    ],
)
def test_the_row_that_takes_too_much_is_blamed_and_no_other(endless: str) -> None:
    source = PLAIN + "{% if messages[0].content == 'row 2' %}" + endless + "{% endif %}"
    rows = [Messages((Message(role="user", content=f"row {n}"), MESSAGES.turns[1])) for n in range(5)]

    found = tried(source, rows=rows, cpu_seconds=1)

    assert found.problem is None
    assert (list(found.faults), found.rows) == ([2], 3)
    assert re.search("more than 1 seconds or 512 MiB|never finishes: it loops", found.faults[2].found)


def test_many_rows_that_take_little_each_are_no_fault() -> None:
    """The sample ends; nobody is blamed."""
    found = tried(PLAIN, rows=[MESSAGES] * 50, sample_cpu_seconds=0)

    assert (found.problem, found.rows, found.faults) == (None, 0, {})


@pytest.mark.parametrize(
    "much",
    ["{{ 'a' * 10**10 }}", "{{ 10**10 * [1] }}", "{{ 10 ** (10 ** 10) }}", "{{ (7 ** 90000) ** 9 }}"],
)
def test_a_product_that_no_conversation_needs_is_refused(much: str) -> None:
    """One step of a processor's time without end, which nothing in this process could interrupt."""
    with pytest.raises(FaultError, match="is larger than 1,000,000"):
        rendered(much)


def test_products_of_a_conversations_size_are_as_in_jinja() -> None:
    assert rendered("{{ '-' * 40 }}{{ 2 ** 10 }}{{ 3 * 0.5 }}{{ 2 * [1] }}{{ 0.5 ** 2 }}") == (
        "-" * 40 + "1024" + "1.5" + "[1, 1]" + "0.25"
    )


LATE = (
    "{% for m in messages %}{{ m.content }}{% if m.content == 'row 1004' %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}{% endfor %}"
)


def test_a_template_that_loops_in_a_late_row_is_ended_there() -> None:
    template = ChatTemplate(LATE, TOKENS, seconds=1)
    rows = [Messages((Message(role="user", content=f"row {number}"),)) for number in range(1010)]

    refused = []
    for number, row in enumerate(rows):
        try:
            template.render(row)
        except FaultError as error:
            refused.append((number, error.fault.found))

    assert refused[0] == (1004, "a conversation that the chat template never finishes: it loops")
    assert [number for number, _ in refused] == list(range(1004, 1010)), "the others are not waited for either"


def test_processor_that_never_comes_is_not_waited_for() -> None:
    asleep = PLAIN + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert "took more than" in (tried(asleep, wall_seconds=1, cpu_seconds=9999).problem or "")


def test_sound_template_passes() -> None:
    assert tried(PLAIN) == TrialResult(rows=3)


def test_problem_of_the_template_and_of_rows() -> None:
    late = "{% for m in messages %}{% if m.content == 'yo' %}{{ raise_exception('late') }}{% endif %}{% endfor %}"

    assert tried("{{ x y }}").problem == "does not compile: line 1: expected token 'end of print statement', got 'y'"
    found = tried(PLAIN + late)
    assert found.problem is None
    assert {number: fault.found for number, fault in found.faults.items()} == dict.fromkeys(
        range(3), "a conversation that the chat template refuses: late"
    )


def test_result_is_json_whatever_the_template_writes() -> None:
    """Only the answer stands on standard output; what a template raises may hold anything."""
    nasty = "{{ raise_exception('\\ud83d \"\n\\x00' ~ messages | tojson) }}"

    assert "refuses" in (tried(nasty).problem or "")
    assert json.dumps(tried(nasty).problem)


def test_the_limit_does_not_end_a_process_that_is_ending() -> None:
    """Python's end takes the signal's handler away, and with torch loaded it takes more than a tick."""
    code = (
        "import atexit, signal\n"
        "atexit.register(lambda: print(signal.getitimer(signal.ITIMER_VIRTUAL)))\n"
        "from finetune_trainer.data.templates.cpu_limit import CpuLimit\n"
        "for _ in range(2):\n    with CpuLimit(9): pass\n"
        "assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] > 0"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "(0.0, 0.0)\n"
