"""Durations and times as kubectl writes them."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+|\d+")


def duration(seconds: float) -> str:
    """A duration as kubectl's AGE column has it, for example `4m10s` or `3h5m`. Negative ones are 0s."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def seconds_of(text: str) -> float:
    """Seconds in a duration such as `90s`, `30m`, `24h`, `1h30m` or `90`, which are seconds.

    Raises:
        ValueError: it is none.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write 90s, 30m, 24h or 1h30m")
    if text.isdecimal():
        return float(text)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def time_of(value: object) -> datetime | None:
    """A time of an object; None if it is absent or unreadable."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def ago(time: datetime | None, now: datetime) -> str:
    """How long ago a time was; empty if it is not known."""
    return "" if time is None else duration((now - time) / timedelta(seconds=1))
