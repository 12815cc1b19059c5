"""What a FineTuneJob's object says, in the words of the screens.

The object may be of a later version, or not reconciled yet: every part of it may be absent or new. Its texts come from
pods and users, so none of them has control characters here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from finetune_operator.api.gpuprice import amount
from finetune_operator.api.reasons import ENDED, ConditionType, Phase, Reason
from finetune_operator.cli.views.duration import time_of
from finetune_trainer.contract.failure import FAILURES, ExitCode, FailureReason, exit_code_of
from finetune_trainer.contract.text import printable, readable

_SECONDS_PER_HOUR = 3600
_WITH_TRAINING_PODS = (Phase.STARTING, Phase.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt."""

    number: int
    start: datetime | None
    end: datetime | None
    reason: str
    message: str
    exit_code: int | None
    counted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionView:
    """One condition."""

    type: str
    status: str
    reason: str
    message: str
    since: datetime | None


class JobView:
    """A FineTuneJob as read from the API server. Texts are empty where nothing is known."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw
        self._metadata = _section(raw, "metadata")
        self._status = _section(raw, "status")
        self._progress = _section(self._status, "progress")
        self._output = _section(self._status, "output")
        self.name = _text(self._metadata, "name")
        self.namespace = _text(self._metadata, "namespace")
        self.uid = _text(self._metadata, "uid")

    def spec(self, path: str) -> str:
        """The text at a dotted path of the spec; empty if it is absent."""
        *sections, field = path.split(".")
        found: Mapping[str, Any] = _section(self.raw, "spec")
        for section in sections:
            found = _section(found, section)
        return _text(found, field)

    @property
    def seen(self) -> bool:
        """Whether an operator has seen the job."""
        return (_number(self._status, "observedGeneration") or 0) >= 0 and bool(self.phase)

    @property
    def current(self) -> bool:
        """Whether the status is about the spec as it is now."""
        return (_number(self._status, "observedGeneration") or -1) >= (_number(self._metadata, "generation") or 0)

    @property
    def phase(self) -> str:
        """The phase; empty before an operator has seen the job."""
        return _text(self._status, "phase")

    @property
    def ended(self) -> bool:
        """Whether the run of the spec as it is now has ended."""
        same_run = _text(self._status, "runToken") == self.spec("runToken")
        return self.phase in list(ENDED) and same_run and self.is_true(ConditionType.FINISHED)

    @property
    def succeeded(self) -> bool:
        """Whether that run ended with an adapter."""
        return self.ended and self.phase == Phase.SUCCEEDED

    @property
    def suspended(self) -> bool:
        """Whether the spec asks for a suspension."""
        return _section(self.raw, "spec").get("suspend") is True

    @property
    def created(self) -> datetime | None:
        """When the object was created."""
        return time_of(self._metadata.get("creationTimestamp"))

    @property
    def started(self) -> datetime | None:
        """When the operator first saw this run, or when it was last resumed."""
        return time_of(self._status.get("startTime"))

    @property
    def finished(self) -> datetime | None:
        """When the run ended."""
        return time_of(self._status.get("completionTime"))

    @property
    def in_phase_since(self) -> datetime | None:
        """When the phase last changed."""
        return time_of(self._status.get("lastPhaseTransitionTime"))

    @property
    def attempt(self) -> int:
        """Number of the current attempt; 0 before the first."""
        return _number(self._status, "attempt") or 0

    @property
    def restarts(self) -> int:
        """Attempts of this run after its first."""
        return _number(self._status, "restarts") or 0

    @property
    def pod(self) -> str:
        """Name of the current pod."""
        return _text(self._status, "podName")

    @property
    def child(self) -> str:
        """Name of the current batch Job."""
        return _text(self._status, "jobName")

    @property
    def fingerprint(self) -> str:
        """The checksum that names the run."""
        return _text(self._status, "fingerprint")

    # Progress

    def progress(self, field: str) -> str:
        """A field of the last progress record."""
        return _text(self._progress, field)

    def count(self, field: str) -> int | None:
        """A whole number of the last progress record; None if it is absent."""
        return _number(self._progress, field)

    @property
    def steps(self) -> tuple[int, int] | None:
        """Steps done, and steps in all; None if they are not known."""
        done, total = self.count("step"), self.count("totalSteps")
        return None if done is None or not total else (min(done, total), total)

    @property
    def eta_seconds(self) -> int | None:
        """Seconds until the last step; None if they are not known or the run has ended."""
        return None if self.ended else self.count("etaSeconds")

    # Conditions

    @property
    def conditions(self) -> list[ConditionView]:
        """All conditions."""
        return [
            ConditionView(
                type=_text(item, "type"),
                status=_text(item, "status"),
                reason=_text(item, "reason"),
                message=_words(item, "message"),
                since=time_of(item.get("lastTransitionTime")),
            )
            for item in _sections(self._status, "conditions")
        ]

    def is_true(self, type_: str) -> bool:
        """Whether that condition is True."""
        return any(item.type == type_ and item.status == "True" for item in self.conditions)

    @property
    def reason(self) -> str:
        """Why the job is as it is: the REASON of `kubectl get -o wide`."""
        return next((item.reason for item in self.conditions if item.type == ConditionType.SUCCEEDED), "")

    @property
    def message(self) -> str:
        """The text of that reason."""
        return next((item.message for item in self.conditions if item.type == ConditionType.SUCCEEDED), "")

    @property
    def failure(self) -> tuple[str, str] | None:
        """Reason and message of the failure; None if the job has not failed."""
        failure = _section(self._status, "failure")
        return (
            (_text(failure, "reason"), _words(failure, "message")) if failure and self.phase == Phase.FAILED else None
        )

    @property
    def exit_code(self) -> int:
        """The exit code of a command that waited for the job: 0, or that of the reason it failed for."""
        if self.failure is None:
            return 0
        reason = self.failure[0]
        return exit_code_of(FailureReason(reason)) if reason in list(FAILURES) else int(ExitCode.INTERNAL)

    @property
    def attempts(self) -> list[AttemptView]:
        """The newest attempts, oldest first."""
        return [
            AttemptView(
                number=_number(item, "number") or 0,
                start=time_of(item.get("startTime")),
                end=time_of(item.get("endTime")),
                reason=_text(item, "reason"),
                message=_words(item, "message"),
                exit_code=_number(item, "exitCode"),
                counted=item.get("counted") is True,
            )
            for item in _sections(self._status, "attempts")
        ]

    # Output

    def output(self, field: str) -> str:
        """A field of the output."""
        return _text(self._output, field)

    @property
    def metrics(self) -> dict[str, str]:
        """Final metrics by name."""
        found = _section(self._output, "metrics")
        return {printable(str(name)): printable(str(value)) for name, value in found.items()}

    @property
    def preflight(self) -> dict[str, str]:
        """What preflight found, by field."""
        found = _section(self._status, "preflight")
        return {name: _text(found, name) for name, value in found.items() if not isinstance(value, dict | list)}

    # GPUs and money

    @property
    def gpus(self) -> int | None:
        """GPUs of all training pods together; None before there are any."""
        return _number(self._status, "gpus")

    @property
    def gpus_in_use(self) -> int:
        """GPUs that its pods hold now."""
        return (self.gpus or 0) if self.phase in list(_WITH_TRAINING_PODS) else 0

    def gpu_seconds(self, now: datetime) -> int:
        """GPUs times seconds so far. For the current attempt it is estimated from its start."""
        seconds = _number(self._status, "gpuSeconds") or 0
        current = self.attempts[-1] if self.attempts else None
        if self.gpus_in_use and current is not None and current.end is None and current.start is not None:
            seconds += self.gpus_in_use * max(0, int((now - current.start) / timedelta(seconds=1)))
        return seconds

    def cost(self, now: datetime) -> float | None:
        """What these seconds have cost; None without a price."""
        price, ended = amount(_text(self._status, "gpuPrice")), amount(_text(self._status, "cost"))
        if price is None and ended is None:
            return None
        running = self.gpu_seconds(now) - (_number(self._status, "gpuSeconds") or 0)
        return float(ended or 0) + float(price or 0) * running / _SECONDS_PER_HOUR

    @property
    def cost_per_hour(self) -> float | None:
        """Price of the GPUs in use for one hour; None without a price."""
        price = amount(_text(self._status, "gpuPrice"))
        return None if price is None else float(price) * self.gpus_in_use

    @property
    def waits_for(self) -> str:
        """What keeps the job from going on, in one sentence; empty if it goes on or has ended."""
        if self.ended:
            return ""
        if not self.seen:
            if managed_by := self.spec("managedBy"):
                return f"no operator has seen it: spec.managedBy is {managed_by}"
            return "no operator has seen it: is one running, and does it serve this namespace?"
        if self.phase == Phase.SUSPENDED:
            return f"spec.suspend is true: kubectl finetune resume {self.name}"
        if words := self.progress("waitingFor"):
            return words
        if self.phase == Phase.RETRYING and self.attempts:
            last = self.attempts[-1]
            why = f"{last.reason}: {last.message}".rstrip(": ")
            return f"the pause before another attempt; attempt {last.number} ended with {why}"
        if self.reason in _WAITING and self.message:
            return self.message
        if not self.current:
            return "the operator has not acted on the newest change yet"
        return ""


_WAITING = (
    Reason.WAITING,
    Reason.NO_POD,
    Reason.CHILD_SUSPENDED,
    Reason.CHILD_REFUSED,
    Reason.OPERATOR_OUTDATED,
    FailureReason.UNSCHEDULABLE,
    FailureReason.IMAGE_PULL,
)
"""Reasons of a job that goes on when something else has happened."""


def _section(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def _sections(of: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = of.get(name)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _text(of: Mapping[str, Any], name: str) -> str:
    found = of.get(name)
    if isinstance(found, bool):
        return str(found).lower()
    return printable(str(found)) if isinstance(found, str | int | float) else ""


def _words(of: Mapping[str, Any], name: str) -> str:
    """A message, which may have several lines."""
    found = of.get(name)
    return readable(found) if isinstance(found, str) else ""


def _number(of: Mapping[str, Any], name: str) -> int | None:
    found = of.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
