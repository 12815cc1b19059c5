"""The runner of checks: order, what is skipped and why, and facts that are written once."""

from collections.abc import Callable

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import Verdict
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.preflight.check import Check, CheckOutcome, Need, passed, skipped
from finetune_trainer.preflight.checks import CHECKS
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.runner import in_order, run_checks
from finetune_trainer.storage.base import Store

pytestmark = pytest.mark.extras

S3, CLAIM = parse_uri("s3://bucket/key"), parse_uri("pvc://claim/path")


def context() -> PreflightContext:
    recipe = Recipe.model_validate(
        {
            "job": {"name": "job", "uid": "1"},
            "model": {"uri": "s3://bucket/model"},
            "dataset": {"uri": "s3://bucket/data.jsonl"},
            "output": {"uri": "s3://bucket/out"},
            "machine": {"gpus": 0},
        }
    )

    def no_store(_: object) -> Store:
        raise AssertionError

    return PreflightContext(recipe, no_store, lambda _: None, "token")


def says(message: str) -> Callable[[PreflightContext], CheckOutcome]:
    return lambda _: passed(message)


def fails(reason: FailureReason) -> Callable[[PreflightContext], CheckOutcome]:
    def run(_: PreflightContext) -> CheckOutcome:
        raise TrainerError(reason, "wrong")

    return run


def verdicts(*checks: Check) -> list[tuple[str, Verdict, str]]:
    return [(item.name, item.verdict, item.message) for item in run_checks(checks, context())]


def test_a_check_runs_after_those_that_it_needs_wherever_it_is_listed() -> None:
    late = Check(name="late", run=says("l"), needs=(Need("middle", "no"),))
    middle = Check(name="middle", run=says("m"), after=("first",))
    first = Check(name="first", run=says("f"))
    other = Check(name="other", run=says("o"))
    assert [check.name for check in in_order([late, middle, first, other])] == ["first", "middle", "late", "other"]


@pytest.mark.parametrize("needed", ["b", "absent"])
def test_checks_that_wait_for_one_another_are_an_error(needed: str) -> None:
    checks = [Check(name="a", run=says("a"), after=(needed,)), Check(name="b", run=says("b"), after=("a",))]
    with pytest.raises(ValueError, match="wait for one another: a, b"):
        list(in_order(checks))


def test_the_checks_of_preflight_are_listed_in_their_order() -> None:
    assert list(in_order(CHECKS)) == list(CHECKS)


def test_a_check_is_skipped_when_one_that_it_needs_has_failed_or_was_skipped() -> None:
    a = Check(name="a", run=fails(FailureReason.DATASET_INVALID))
    b = Check(name="b", run=says("b"), needs=(Need("a", "a is wrong"),))
    c = Check(name="c", run=says("c"), needs=(Need("b", None),))
    assert verdicts(a, b, c) == [
        ("a", Verdict.FAILED, "wrong"),
        ("b", Verdict.SKIPPED, "a is wrong"),
        ("c", Verdict.SKIPPED, "a is wrong"),
    ]


def test_a_check_that_needs_nothing_runs_after_a_failure_and_one_that_only_must_not_fail_after_a_skip() -> None:
    a = Check(name="a", run=fails(FailureReason.DATASET_INVALID))
    b = Check(name="b", run=lambda _: skipped("not now"))
    c = Check(name="c", run=says("c"), needs=(Need("b", "b is wrong", or_skipped=True),))
    d = Check(name="d", run=says("d"), needs=(Need("a", "a is wrong", or_skipped=True),))
    assert [verdict for _, verdict, _ in verdicts(a, b, c, d)] == [
        Verdict.FAILED,
        Verdict.SKIPPED,
        Verdict.PASSED,
        Verdict.SKIPPED,
    ]


def test_the_first_need_that_is_not_met_says_why() -> None:
    a = Check(name="a", run=fails(FailureReason.DATASET_INVALID))
    b = Check(name="b", run=fails(FailureReason.MODEL_INVALID))
    c = Check(name="c", run=says("c"), needs=(Need("b", "of b"), Need("a", "of a")))
    assert verdicts(a, b, c)[-1] == ("c", Verdict.SKIPPED, "of b")


def test_storage_that_did_not_answer_is_not_asked_again_and_other_storage_is() -> None:
    a = Check(name="a", run=fails(FailureReason.STORAGE_UNAVAILABLE), asks=lambda _: [S3])
    b = Check(name="b", run=says("b"), asks=lambda _: [CLAIM, S3])
    c = Check(name="c", run=says("c"), asks=lambda _: [CLAIM])
    assert verdicts(a, b, c)[1:] == [
        ("b", Verdict.SKIPPED, "the storage does not answer"),
        ("c", Verdict.PASSED, "c"),
    ]


def test_storage_that_answered_with_a_refusal_is_asked_again() -> None:
    a = Check(name="a", run=fails(FailureReason.STORAGE_ACCESS_DENIED), asks=lambda _: [S3])
    b = Check(name="b", run=says("b"), asks=lambda _: [S3])
    assert verdicts(a, b)[1] == ("b", Verdict.PASSED, "b")


def test_the_report_has_a_line_for_what_has_a_message_under_the_name_that_the_check_gives() -> None:
    quiet = Check(name="quiet", run=says(""))
    hidden = Check(name="hidden", run=says("h"), reported_as=None)
    other = Check(name="rows.first", run=says("r"), reported_as="rows")
    nothing = Check(name="nothing", run=says("n"), applies=lambda _: False)
    assert verdicts(quiet, hidden, other, nothing) == [("rows", Verdict.PASSED, "r")]


def test_a_fact_is_written_once() -> None:
    facts, others = context(), context()
    assert facts.data is None
    facts.data = []
    with pytest.raises(AttributeError, match="data is established already"):
        facts.data = []
    assert others.data is None
    assert facts.fingerprint is None
