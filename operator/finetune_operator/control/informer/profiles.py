"""The profiles in the cache. They are few and small, so all are kept.

A profile of another namespace is never answered: a tenant's profile concerns the tenant's jobs alone.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_operator.api.profile import Profile, profile_of
from finetune_operator.api.spec import ProfileKind
from finetune_operator.control.informer.cache import is_older


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    version: str
    profile: Profile


class ProfileCache:
    """All profiles that may be read; for one event loop."""

    def __init__(self) -> None:
        self._entries: dict[tuple[ProfileKind, str, str], _Entry] = {}  # by kind, namespace and name
        self.revision = 0
        """Grows with every change."""

    def of(self, namespace: str) -> tuple[Profile, ...]:
        """The profiles that a job of a namespace may use: its own and the cluster's."""
        return tuple(entry.profile for (_, own, _), entry in self._entries.items() if own in (namespace, _CLUSTER))

    def put(self, kind: ProfileKind, raw: Mapping[str, Any]) -> bool:
        """Puts a version of a profile into the cache. Returns whether anything that jobs see has changed."""
        profile, version = profile_of(raw, kind), raw["metadata"].get("resourceVersion", "")
        key = (kind, profile.namespace, profile.name)
        earlier = self._entries.get(key)
        if earlier is not None and is_older(version, earlier.version):
            return False
        self._entries[key] = _Entry(version=version, profile=profile)
        if earlier is not None and earlier.profile == profile:
            return False
        self.revision += 1
        return True

    def remove(self, kind: ProfileKind, namespace: str, name: str, uid: str) -> bool:
        """Removes a profile. Returns whether it was in the cache."""
        key = (kind, namespace, name)
        entry = self._entries.get(key)
        if entry is None or entry.profile.uid != uid:
            return False
        del self._entries[key]
        self.revision += 1
        return True

    def prune(self, kind: ProfileKind, seen: Collection[str], version: str, namespace: str | None) -> Iterator[Profile]:
        """Removes the profiles that are not in a list, and yields each.

        Args:
            kind: the kind that was listed.
            seen: UIDs in the list.
            version: resourceVersion of the list; newer objects stay.
            namespace: the namespace that was listed; None for all.
        """
        gone = [
            entry.profile
            for (its_kind, own, _), entry in self._entries.items()
            if its_kind is kind
            and (kind is ProfileKind.CLUSTER or namespace in (None, own))
            and entry.profile.uid not in seen
            and not is_older(version, entry.version)
        ]
        for profile in gone:
            self.remove(kind, profile.namespace, profile.name, profile.uid)
            yield profile


_CLUSTER = ""
"""The namespace of a ClusterFineTuneProfile."""
