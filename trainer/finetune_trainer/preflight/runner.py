"""Runs checks: each after those that it needs, and not at all when one of those did not pass.

A check that needs nothing runs even when an earlier one failed, so a user sees a wrong key and a broken line at once.
"""

from collections.abc import Iterator, Mapping, Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import CheckResult, Verdict
from finetune_trainer.contract.uri import Scheme
from finetune_trainer.preflight.check import Check, CheckOutcome, failed, skipped
from finetune_trainer.preflight.context import PreflightContext


def run_checks(checks: Sequence[Check], context: PreflightContext) -> list[CheckResult]:
    """Runs the checks; returns the lines of the report.

    Args:
        checks: in the order that they are to run in, as far as their needs allow it.
        context: takes what they establish.

    Raises:
        ValueError: checks need one another, or one that is not there.
    """
    outcomes: dict[str, CheckOutcome] = {}
    silent: set[Scheme] = set()
    results: list[CheckResult] = []
    for check in in_order(checks):
        outcomes[check.name] = outcome = _outcome(check, context, outcomes, silent)
        if check.report_name is not None and outcome.message:
            results.append(
                CheckResult(
                    name=check.report_name, verdict=outcome.verdict, reason=outcome.reason, message=outcome.message
                )
            )
    return results


def in_order(checks: Sequence[Check]) -> Iterator[Check]:
    """The checks, each after its predecessors; otherwise as they are listed.

    Raises:
        ValueError: checks need one another, or one that is not there.
    """
    left, ended = list(checks), set[str]()
    while left:
        ready = next((check for check in left if check.predecessors <= ended), None)
        if ready is None:
            raise ValueError(f"these checks wait for one another: {', '.join(check.name for check in left)}")
        left.remove(ready)
        ended.add(ready.name)
        yield ready


def _outcome(
    check: Check, context: PreflightContext, outcomes: Mapping[str, CheckOutcome], silent: set[Scheme]
) -> CheckOutcome:
    """Runs one check, unless it is skipped. Storage that did not answer once is not tried again.

    Args:
        check: the check.
        context: what is known.
        outcomes: of the checks before it.
        silent: storage that did not answer; takes what the check asks when it does not answer either.
    """
    if not check.applies(context):
        return skipped()
    for need in check.needs:
        needed = outcomes[need.check]
        if needed.verdict is Verdict.FAILED or (needed.verdict is Verdict.SKIPPED and not need.or_skipped):
            return skipped(needed.message if need.otherwise is None else need.otherwise)
    schemes = {uri.scheme for uri in check.asks(context)}
    if schemes & silent:
        return skipped("the storage does not answer")
    try:
        return check.run(context)
    except TrainerError as error:
        if error.reason is FailureReason.STORAGE_UNAVAILABLE:
            silent |= schemes
        return failed(error)
