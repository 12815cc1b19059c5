"""What a check is: its name, what it needs of others, and how it ends."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import Verdict
from finetune_trainer.contract.uri import Uri
from finetune_trainer.preflight.context import PreflightContext


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """How a check ended. One without a message has no line in the report.

    Attributes:
        verdict: passed, failed or skipped.
        message: what was seen, what is wrong, or why it was skipped.
        reason: of a failure.
    """

    verdict: Verdict
    message: str = ""
    reason: FailureReason | None = None


def passed(message: str = "") -> CheckOutcome:
    """No problem."""
    return CheckOutcome(Verdict.PASSED, message)


def skipped(message: str = "") -> CheckOutcome:
    """Nothing was checked."""
    return CheckOutcome(Verdict.SKIPPED, message)


def failed(error: TrainerError) -> CheckOutcome:
    """The job would end with this error."""
    return CheckOutcome(Verdict.FAILED, error.message, error.reason)


@dataclass(frozen=True, slots=True)
class Need:
    """Another check, without which one is skipped.

    Attributes:
        check: the other check's name. It must have passed.
        otherwise: why this one is skipped then; None repeats what the other one says.
        or_skipped: it is enough that the other one has not failed.
    """

    check: str
    otherwise: str | None
    or_skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a recipe.

    Attributes:
        name: by which other checks need it.
        run: does the check; a TrainerError that it raises is its failure.
        needs: checks without which it is skipped, judged in this order.
        after: checks that run before it, however they end.
        applies: whether there is anything to check; if not, it is skipped without a line in the report.
        asks: the storage that it uses; it is skipped when that storage did not answer an earlier check.
        reported_as: its name in the report, by default its own; None keeps it out of the report.
    """

    name: str
    run: Callable[[PreflightContext], CheckOutcome]
    needs: tuple[Need, ...] = ()
    after: tuple[str, ...] = ()
    applies: Callable[[PreflightContext], bool] = lambda _: True
    asks: Callable[[PreflightContext], Iterable[Uri]] = lambda _: ()
    reported_as: str | None = ""

    @property
    def report_name(self) -> str | None:
        """The name of its line in the report; None when it has none."""
        return self.name if self.reported_as == "" else self.reported_as

    @property
    def predecessors(self) -> frozenset[str]:
        """The checks that must have ended before it begins."""
        return frozenset(self.after) | {need.check for need in self.needs}
