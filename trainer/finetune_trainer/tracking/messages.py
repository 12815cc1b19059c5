"""What the trainer tells the tracker's process: a JSON object a line."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

LONGEST_VALUE = 250
"""Characters of a parameter's value that MLflow's servers take at least."""


class TrackerKind(StrEnum):
    """A tracker, by the key of `spec.tracking`."""

    MLFLOW = "mlflow"
    WANDB = "wandb"
    TRACKIO = "trackio"


class RunStatus(StrEnum):
    """How a run ended, by MLflow's names."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The run, which all attempts of a training share.

    Attributes:
        tracker: the tracker.
        experiment: experiment or project.
        name: the run's name, for people.
        run: the run's identity.
        parameters: settings of the training, texts.
        tags: where the run comes from.
    """

    tracker: TrackerKind
    experiment: str
    name: str
    run: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Numbers after a step, by transformers' names."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of the run in this process."""

    status: RunStatus


Message = Begin | Metrics | End


def to_line(message: Message) -> str:
    """The message as a line, with its line feed."""
    return json.dumps({type(message).__name__: asdict(message)}) + "\n"


def from_line(line: str) -> Message:
    """The message of a line that `to_line` wrote."""
    ((name, values),) = json.loads(line).items()
    match name:
        case "Begin":
            return Begin(**{**values, "tracker": TrackerKind(values["tracker"])})
        case "Metrics":
            return Metrics(**values)
        case _:
            return End(status=RunStatus(values["status"]))


def numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an entry of the training's history."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def flattened(settings: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Settings by their path, their values as texts of at most `LONGEST_VALUE` characters.

    Args:
        settings: nested objects.
        path: the path of `settings` with a dot behind it.
    """
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = (value if isinstance(value, str) else json.dumps(value))[:LONGEST_VALUE]
    return found
