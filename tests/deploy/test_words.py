"""For every bound and every rule: a spec that breaks it is refused by all three, in the same words.

The API server holds the CRD, the operator its parser, and people `finetune validate`. What is tried is generated from
the CRD's schema (deploy.specs), so a bound or a rule that is added is tried too, or the test says that it is not.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from deploy.generated import SPECS, mended
from deploy.readers import Readers
from deploy.server import Server
from deploy.specs import FULL, PLACES, Break, Spec, bounds, over_several, rules_over_several, values
from finetune_operator.api import names

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def readers(installed: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    with contextlib.closing(Readers(installed, tmp_path_factory.mktemp("files"))) as readers:
        yield readers


def disagreement(readers: Readers, item: Break) -> str:
    """What does not say the words at the path; empty when all three do."""
    problems = readers.parser(item.spec)
    silent = [] if (item.path, item.words) in problems else [f"parser: {problems}"]
    if len(problems) > 1:
        silent.append(f"parser has more to say: {problems}")
    # The server writes of an unknown field nothing but its name, and of a bound `PATH in body should be ...`.
    said = readers.server(item.spec)
    # A key of a map is in brackets where CEL has refused it, and behind a dot where the schema has.
    bracketed = re.sub(r"(nodeSelector|labels|annotations)\.(.+)", r"\1[\2]", item.path)
    if item.words not in said or not (item.path in said or bracketed in said):
        silent.append(f"server: {said or 'takes it'}")
    shown = readers.command_line(item.spec)
    if f"{item.path}: {item.words}" not in shown:
        silent.append(f"command line: {shown or 'takes it'}")
    return "".join(f"\n  {line}" for line in silent)


def check(readers: Readers, items: list[Break]) -> None:
    wrong = [f"{item}{said}" for item in items if (said := disagreement(readers, item))]
    assert not wrong, "\n".join(wrong)


def test_full_specs_are_taken_and_have_every_field(readers: Readers) -> None:
    for spec in FULL:
        assert readers.parser(spec) == []
        assert readers.server(spec) == ""
        assert readers.command_line(spec) == ""


def test_every_bound_is_held_in_the_same_words(readers: Readers) -> None:
    tried = list(bounds())
    assert len(tried) > len(PLACES)
    check(readers, tried)


def test_every_rule_of_one_value_is_held_in_the_same_words(readers: Readers) -> None:
    tried = list(values())
    check(readers, tried)
    # By place, as the schema has them: none is left out.
    rules = {rule["message"] for place, schema in PLACES.items() if place != "spec" for rule in rules_of(schema)}
    assert rules == {item.words for item in tried}


def rules_of(schema: object) -> list[dict[str, str]]:
    rules: list[dict[str, str]] = schema.get("x-kubernetes-validations", []) if isinstance(schema, dict) else []
    return rules


def test_every_rule_over_several_fields_is_held_in_the_same_words(readers: Readers) -> None:
    broken: set[tuple[str, str]] = set()
    for spec in over_several():
        problems = readers.parser(spec)
        assert len(problems) == 1, (spec, problems)
        path, words = problems[0]
        check(readers, [Break(path=path, words=words, spec=spec)])
        broken |= set(problems)
    assert broken == rules_over_several()


def test_a_name_and_a_repeated_variable(readers: Readers) -> None:
    for name in ("support.bot", "a" * 64, "Support"):
        assert f'metadata.name: Invalid value: "object": {names.NAME_RULE}' in readers.server(FULL[0], name) or (
            names.NAME_RULE in readers.server(FULL[0], name)
        )
        assert f"metadata.name: {names.NAME_RULE}" in readers.command_line(FULL[0], name)
    spec: Spec = {**FULL[2], "scheduling": {"env": [{"name": "A"}, {"name": "A"}]}}
    check(readers, [Break(path="spec.scheduling.env[1]", words="Duplicate value", spec=spec)])


# Each example is a few requests of the API server.
@settings(max_examples=min(settings().max_examples, 300) if settings().derandomize else settings().max_examples)
@given(spec=SPECS)
def test_what_is_generated_is_taken_or_refused_by_all_three(readers: Readers, spec: Spec) -> None:
    problems = readers.parser(spec)
    said, shown = readers.server(spec), readers.command_line(spec)
    assert bool(problems) == bool(said) == bool(shown), (problems, said, shown)
    # Where a rule of one value is broken the parser asks no rule over several; the server asks all.
    assert [words for _, words in problems if words not in said or words not in shown] == []
    good = mended(spec)
    assert readers.parser(good) == []
    assert readers.server(good) == ""
    assert readers.command_line(good) == ""
