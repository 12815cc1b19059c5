"""Resolving a job's profiles: which count, what they supply together, and what of a job is above their ceilings.

A run is resolved once, when it begins. The result is in its status, and every later attempt uses it, whatever happens
to the profiles.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from finetune_operator.api.finetunejob import Held, SpecError, compact_json, parse_spec
from finetune_operator.api.merge import merged
from finetune_operator.api.profile import Profile
from finetune_operator.api.quantity import parse_quantity
from finetune_operator.api.reasons import ConditionType, Reason
from finetune_operator.api.spec import FineTuneJobSpec, ProfileKind, ProfileRef
from finetune_operator.api.status import MAX_PROFILE_VALUES, FineTuneJobStatus, ProfileCeiling, ProfileStatus
from finetune_trainer.contract.problem import Problem, shown
from finetune_trainer.contract.rule import value_at
from finetune_trainer.contract.text import MAX_TEXT, message_of

Profiles = Callable[[str], Sequence[Profile]]
"""The profiles that a job of a namespace may use: those of the namespace and of the cluster."""


def no_profiles(_: str) -> Sequence[Profile]:
    """The profiles of an installation without any."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A job's spec with the values of its profiles.

    Attributes:
        excess: a problem for each field above a ceiling.
    """

    spec: FineTuneJobSpec
    excess: tuple[Problem, ...]


def has_begun(status: FineTuneJobStatus, run_token: str | None) -> bool:
    """Whether the run that spec.runToken asks for has begun. A run is resolved when it begins."""
    if status.start_time is None:
        return False
    return not status.is_true(ConditionType.FINISHED) or (status.run_token or None) == (run_token or None)


def resolve(profiles: Sequence[Profile], ref: ProfileRef | None) -> ProfileStatus | Held | None:
    """What is recorded of the profiles of a run that begins; None if there are none, `Held` if it cannot begin.

    Args:
        profiles: those of the namespace and of the cluster.
        ref: the profile that the job names.
    """
    chosen = choose(profiles, ref)
    return chosen if isinstance(chosen, Held) else record_of(chosen)


def choose(profiles: Sequence[Profile], ref: ProfileRef | None) -> tuple[Profile, ...] | Held:
    """The profiles of a job; each wins over the one before."""
    found = [default_of(profiles, ProfileKind.CLUSTER), default_of(profiles, ProfileKind.NAMESPACED)]
    if ref is not None:
        named = next((item for item in profiles if (item.kind, item.name) == (ref.kind, ref.name)), None)
        if named is None:
            return Held(reason=Reason.PROFILE_NOT_FOUND, message=_missing(profiles, ref))
        # A default that the job names counts at the higher place.
        found = [*(item for item in found if item != named), named]
    return tuple(item for item in found if item is not None)


def default_of(profiles: Iterable[Profile], kind: ProfileKind) -> Profile | None:
    """The default profile of that kind. Of several the newest counts, then the first by name, as of StorageClasses."""
    annotated = sorted((item for item in profiles if item.kind is kind and item.is_default), key=lambda item: item.name)
    return max(annotated, key=_created, default=None)


def _created(profile: Profile) -> float:
    return datetime.fromisoformat(profile.created).timestamp() if profile.created else 0.0


def _missing(profiles: Sequence[Profile], ref: ProfileRef) -> str:
    there = sorted(item.name for item in profiles if item.kind is ref.kind)
    other = next((item for item in profiles if item.name == ref.name), None)
    words = f"{ref.kind} {ref.name} does not exist: create it, and the job begins"
    if other is not None:
        return f"{words}; there is a {other.kind} of that name: spec.profileRef.kind names the kind"
    return f"{words}; there {'is' if len(there) == 1 else 'are'} {', '.join(there[:8])}" if there else words


def record_of(chosen: Sequence[Profile]) -> ProfileStatus | Held | None:
    """The record of these profiles, the later of which win; None if there are none."""
    if not chosen:
        return None
    layers = []
    ceilings: dict[str, ProfileCeiling] = {}
    for profile in chosen:
        try:
            layers.append(profile.values())
            _lower(ceilings, profile)
        except SpecError as error:
            problems = "; ".join(map(str, error.problems))
            message = message_of(f"{profile} cannot be used: {problems}. Correct it, and the job begins")
            return Held(reason=Reason.PROFILE_INVALID, message=message)
    values = compact_json(merged(layers)).decode(errors="replace")
    if len(values) > MAX_PROFILE_VALUES:
        together = ", ".join(map(str, chosen))
        message = f"{together} supply more than {MAX_PROFILE_VALUES} characters together: make their texts shorter"
        return Held(reason=Reason.PROFILE_INVALID, message=message)
    listed = [ceilings[path] for path in sorted(ceilings)]
    whole = {"values": json.loads(values), "ceilings": {item.path: item.value for item in listed}}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return ProfileStatus(
        sources=[profile.source for profile in chosen],
        digest=f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}",
        display=", ".join(profile.name for profile in chosen)[:MAX_TEXT],
        values=values,
        ceilings=listed,
    )


_CLAIMS = "resources.claims"


def _lower(ceilings: dict[str, ProfileCeiling], profile: Profile) -> None:
    """Adds a profile's ceilings where they are the lowest so far."""
    own = dict(profile.ceilings())
    if "resources.gpus" in own:
        own.setdefault(_CLAIMS, 0)
    for path, value in own.items():
        known = ceilings.get(path)
        if known is None or parse_quantity(str(value)) < parse_quantity(known.value):
            ceilings[path] = ProfileCeiling(path=path, value=str(value), source=str(profile))


def effective(own: bytes, profile: ProfileStatus | None, *, local: bool = False) -> Effective:
    """A job's spec with the recorded values, as strictly parsed as any spec.

    Args:
        own: the job's own spec, as JSON.
        profile: the record of the job's profiles.
        local: see `parse_spec`.

    Raises:
        SpecError: the job's own spec, or the merged one, is not valid.
    """
    if profile is None:
        return Effective(spec=parse_spec(own, local=local), excess=())
    limits = tuple((item.path, item.value, item.source) for item in profile.ceilings)
    return _effective(own, profile.values, ", ".join(map(str, profile.sources)), limits, local)


@lru_cache(maxsize=256)
def _effective(
    own: bytes,
    values: str,
    sources: str,
    ceilings: tuple[tuple[str, str, str], ...],
    local: bool,  # noqa: FBT001
) -> Effective:
    """Cached: a job is reconciled several times within seconds, and its spec hardly ever changes."""
    parse_spec(own, local=local, own_values=True)
    try:
        spec = parse_spec(merged([json.loads(values), json.loads(own)]), local=local)
    except SpecError as error:
        advice = f"{sources} supplied what the job leaves out: set the fields in the job, or use another profile"
        problems = [
            Problem(path=item.path, value=item.value, message=item.message, remedy=item.remedy or advice)
            for item in error.problems
        ]
        raise type(error)(problems) from None
    excess = tuple(_excess(spec, ceilings))
    return Effective(spec=_limited(spec, ceilings, excess), excess=excess)


def _excess(spec: FineTuneJobSpec, ceilings: Iterable[tuple[str, str, str]]) -> Iterable[Problem]:
    for path, most, source in ceilings:
        for checked in (path, f"{path}Limit") if path.endswith(".cpu") else (path,):
            value = value_at(spec, checked)
            number = len(value) if isinstance(value, list) else value
            if number is not None and parse_quantity(str(number)) > parse_quantity(most):
                yield Problem(
                    path=f"spec.{checked}",
                    value=shown(number),
                    message=f"is above the ceiling of {source}, {most}",
                    remedy="lower it, or ask whoever keeps that profile",
                )


_WITHOUT_A_LIMIT = {
    "resources.cpu": "resources.cpuLimit",
    "resources.memory": "resources.memory",
    "resources.ephemeralStorage": "resources.ephemeralStorage",
    "preflight.resources.cpu": "preflight.resources.cpuLimit",
    "activeDeadlineSeconds": "activeDeadlineSeconds",
}
"""Ceiling -> the field that is without any limit when it is absent."""

_AT_ONCE = ("activeDeadlineSeconds", "retry.limit")
"""Fields that act on an attempt that runs already."""


def _limited(
    spec: FineTuneJobSpec, ceilings: Iterable[tuple[str, str, str]], excess: Sequence[Problem]
) -> FineTuneJobSpec:
    """The spec in which the ceilings hold: as with a LimitRange, an absent limit becomes the ceiling.

    A job above a ceiling is refused before it has a pod. What was raised later, and acts on pods that run, is held.
    """
    above = {problem.path for problem in excess}
    for path, most, _ in ceilings:
        field = _WITHOUT_A_LIMIT.get(path)
        value: Any = int(Decimal(most)) if path == "activeDeadlineSeconds" or path in _AT_ONCE else most
        if field is not None and value_at(spec, field) is None and f"spec.{path}" not in above:
            spec = _with(spec, field.split("."), value)
        elif path in _AT_ONCE and f"spec.{path}" in above:
            spec = _with(spec, path.split("."), value)
    return spec


def _with(model: Any, keys: Sequence[str], value: Any) -> Any:
    """A copy of a model with another value of a field, which is valid already."""
    name = next(name for name, field in type(model).model_fields.items() if (field.alias or name) == keys[0])
    inner = value if len(keys) == 1 else _with(getattr(model, name), keys[1:], value)
    return model.model_copy(update={name: inner})


def ref_of(own: Mapping[str, Any]) -> ProfileRef | None:
    """The profile that a job's own spec names, if it is valid; an invalid one is refused by the models."""
    try:
        return ProfileRef.model_validate(own["profileRef"]) if own.get("profileRef") is not None else None
    except ValueError:
        return None
