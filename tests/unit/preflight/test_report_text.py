"""What data, model and libraries say reaches preflight's report without control characters, as text and as JSON."""

import pytest

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.preflight_report import CheckResult, DataProblem, PreflightReport, Verdict
from finetune_trainer.contract.text import CONTROL
from finetune_trainer.preflight.report import shown, termination

pytestmark = pytest.mark.extras

ESCAPES = "\x1b]0;evil\x07 \x9b2J \u202elive \u2066"


def test_every_text_is_readable() -> None:
    check = CheckResult(name="model", verdict=Verdict.FAILED, reason=FailureReason.MODEL_INVALID, message=ESCAPES)
    problem = DataProblem(file=ESCAPES, line=1, path=ESCAPES, found=ESCAPES, expected=ESCAPES, remedy=ESCAPES)
    report = PreflightReport(passed=False, checks=[check], problems=[problem], problem_count=1)
    for text, count in ((shown(report), 6), (report.to_json(), 6), (termination(report).to_json(), 1)):
        assert text.count("live") == count
        assert not CONTROL.search(text.replace("\n", ""))
