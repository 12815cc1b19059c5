"""The scenario of a scripted pod: JSON in FINETUNE_SCENARIO.

Every attempt plays an object. Of a list, the first attempt plays the first entry and so on. All attempts after the last
entry play the last entry. The default is a quick success:

    {"steps": 5, "stepSeconds": 0.2, "end": "succeed"}
    [{"end": "fail", "reason": "GpuOutOfMemory"}, {"fromStep": 3}]
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, TypeAdapter

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.wire import Wire

SCENARIO_ENV = "FINETUNE_SCENARIO"


class End(StrEnum):
    """How the pod ends."""

    SUCCEED = "succeed"
    REUSE = "reuse"
    """Success without training, because the adapter of this run exists."""
    FAIL = "fail"
    """A failure with a reason, like the failures of the real trainer."""
    CRASH = "crash"
    """An exit with a code and without a termination message."""
    KILL = "kill"
    """The process sends SIGKILL to itself: exit code 137 without OOMKilled."""
    OUT_OF_MEMORY = "oom"
    """Allocates memory until the kernel kills the process."""
    HANG = "hang"
    """Sends no more reports and does not end."""


class OnSigterm(StrEnum):
    """The reaction to SIGTERM."""

    SAVE = "save"
    """Ends as preempted, as the trainer does after its checkpoint."""
    DIE = "die"
    """Ends at once with exit code 143."""
    IGNORE = "ignore"


class PreflightScenario(Wire):
    """The result of preflight."""

    seconds: float = Field(0, ge=0, description="How long it takes.")
    reason: FailureReason | None = Field(None, description="Why it fails; absent: it passes.")
    message: str = "scripted failure"
    exit_code: int | None = Field(None, description="Instead of the reason's own; then there is no message either.")
    rows: int = 100
    existing: bool = Field(default=False, description="The adapter of this run exists already.")


class Scenario(Wire):
    """The scenario of one attempt."""

    start_seconds: float = Field(0, ge=0, description="Time before the first step, spent in the stage Loading.")
    from_step: int = Field(0, ge=0, description="Step of the checkpoint that the attempt goes on from.")
    steps: int = Field(5, ge=0, description="Optimizer steps in all.")
    step_seconds: float = Field(0.2, ge=0)
    end: End = End.SUCCEED
    end_step: int | None = Field(None, ge=0, description="Step after which the end comes. Default: the last.")
    reason: FailureReason = Field(FailureReason.INTERNAL, description="Of end: fail.")
    message: str = Field("scripted failure", description="Of end: fail.")
    exit_code: int = Field(1, ge=1, le=255, description="Of end: crash.")
    termination: str | None = Field(None, description="Written as termination message as it stands, whatever the end.")
    output: dict[str, Any] | None = Field(
        default_factory=dict, description="Fields of the OutputRecord to change; null: success without a record."
    )
    fingerprint: str | None = Field(None, description="Instead of the recipe's.")
    on_sigterm: OnSigterm = OnSigterm.SAVE
    sigterm_seconds: float = Field(0, ge=0, description="How long saving takes.")
    report: bool = Field(default=True, description="Whether progress is reported over the network.")
    oom_bytes: int = Field(4 << 30, gt=0, description="Where end: oom gives up when nothing limits it.")
    preflight: PreflightScenario = Field(default_factory=PreflightScenario)


_SCRIPT: TypeAdapter[list[Scenario]] = TypeAdapter(list[Scenario])


def read_scenario(environment: Mapping[str, str], attempt: int) -> Scenario:
    """Returns the scenario of an attempt, numbered from 1.

    Raises:
        ValueError: the variable has no valid scenario (the errors of json and pydantic are ValueErrors).
    """
    given = json.loads(environment.get(SCENARIO_ENV) or "{}")
    script = _SCRIPT.validate_python(given if isinstance(given, list) else [given])
    return script[min(attempt, len(script)) - 1] if script else Scenario()
