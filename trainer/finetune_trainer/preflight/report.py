"""The report as text, as a termination message and as an exit code."""

from collections.abc import Callable

from finetune_trainer.contract.failure import EXIT_OK, FAILURES, FailureReason, exit_code_of
from finetune_trainer.contract.preflight_report import CheckResult, PreflightReport, Verdict
from finetune_trainer.contract.termination import MAX_PINNED, Outcome, PreflightSummary, Termination
from finetune_trainer.contract.text import MAX_INTEGER
from finetune_trainer.data.problems import KEPT, shorten
from finetune_trainer.preflight.context import PreflightContext
from finetune_trainer.preflight.token_text import histogram
from finetune_trainer.storage.hub_kind import HubRepository

_MARKS = {Verdict.PASSED: "ok", Verdict.FAILED: "FAILED", Verdict.SKIPPED: "skipped"}
_FIRST_MESSAGE, _OTHER_MESSAGE = 2200, 300
"""Letters of a message in the pod's status, whose 4,096 bytes hold JSON and a fingerprint too."""


def report_of(context: PreflightContext, checks: list[CheckResult]) -> PreflightReport:
    """The report of checks that have all ended.

    Args:
        context: what they have established.
        checks: how each of them ended.
    """
    problems = [problem for findings in context.findings for problem in findings.problems]
    return PreflightReport(
        passed=all(item.verdict is not Verdict.FAILED for item in checks),
        checks=checks,
        problems=problems[:KEPT],
        problem_count=_problem_count(context),
        tokens=context.tokens,
        summary=_summary(context),
        fingerprint=context.fingerprint,
        memory=context.memory.parts() if context.memory is not None else {},
        existing=context.existing,
    )


def _summary(context: PreflightContext) -> PreflightSummary:
    model, scan, tokens = context.model, context.scanned, context.tokens
    sampled = tokens is not None and tokens.sampled_rows < tokens.rows
    return PreflightSummary(
        rows=scan.rows if scan else None,
        bytes=scan.bytes if scan else None,
        schema_=context.started.scan.schema if context.started else None,
        problems=_problem_count(context),
        duplicates=scan.duplicates.count if scan else None,
        tokens=tokens.tokens if tokens else None,
        tokens_p50=tokens.p50 if tokens else None,
        tokens_p95=tokens.p95 if tokens else None,
        tokens_max=tokens.longest if tokens else None,
        truncated=tokens.truncated if tokens else None,
        dropped=tokens.dropped if tokens else None,
        sampled_rows=tokens.sampled_rows if tokens and sampled else None,
        steps=tokens.steps if tokens else None,
        model_parameters=model.facts.parameters if model else None,
        model_bytes=model.facts.size if model else None,
        model_revision=model.folder[0].revision if model else None,
        dataset_revisions=_dataset_revisions(context),
        memory_estimate_bytes=context.memory.total if context.memory and context.memory.total <= MAX_INTEGER else None,
    )


def _dataset_revisions(context: PreflightContext) -> dict[str, str]:
    """The commits of the Hub data sets, by repository: of the first ones that a termination message has room for."""
    objects = [*(context.data or ()), *(context.validation_data or ())]
    commits = {
        HubRepository.of(item.location.authority).name: item.revision for item in objects if item.revision is not None
    }
    return dict(list(commits.items())[:MAX_PINNED])


def _problem_count(context: PreflightContext) -> int:
    return sum(findings.count for findings in context.findings)


def exit_code(report: PreflightReport) -> int:
    """The exit code of the first check that failed; 0 when none did."""
    failed = _failed(report)
    return exit_code_of(failed[0].reason or FailureReason.INTERNAL) if failed else EXIT_OK


def termination(report: PreflightReport) -> Termination:
    """The report as a termination message: the first failure in full, further ones in short."""
    failed = _failed(report)
    outcome = Outcome.FAILED if failed else Outcome.REUSED if report.existing else Outcome.SUCCEEDED
    parts = [
        f"{item.name}: {shorten(item.message, _OTHER_MESSAGE if index else _FIRST_MESSAGE)}"
        for index, item in enumerate(failed)
    ]
    return Termination(
        outcome=outcome,
        reason=failed[0].reason if failed else None,
        message="\n".join(parts),
        fingerprint=report.fingerprint,
        output=report.existing,
        preflight=report.summary,
    )


def _remedy(reason: FailureReason) -> str:
    return FAILURES[reason].remedy


def shown(report: PreflightReport, remedy: Callable[[FailureReason], str] = _remedy) -> str:
    """The report for a terminal: a line a check, all kept problems, and what to do.

    Args:
        report: the report.
        remedy: what to do about a reason; by default what the contract's table says, for a job in a cluster.
    """
    width = max(len(item.name) for item in report.checks)
    lines = [f"{_MARKS[item.verdict]:8}{item.name:{width}}  {_first_line(item)}".rstrip() for item in report.checks]
    lines += [f"  {line}" for line in histogram(report.tokens)] if report.tokens is not None else []
    lines += [f"  {problem}" for problem in report.problems]
    if (more := report.problem_count - len(report.problems)) > 0:
        lines.append(f"  … and {more:,} more")
    for reason in dict.fromkeys(item.reason for item in _failed(report) if item.reason):
        lines.append(f"{reason}: {remedy(reason)}")
    return "\n".join(lines)


def _first_line(item: CheckResult) -> str:
    """The dataset's problems follow one by one: their summary is enough here."""
    return item.message.partition("\n")[0]


def _failed(report: PreflightReport) -> list[CheckResult]:
    return [item for item in report.checks if item.verdict is Verdict.FAILED]
