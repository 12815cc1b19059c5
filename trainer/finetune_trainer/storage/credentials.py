"""Keys of object storage, from a mounted Secret.

The kubelet updates a mounted Secret in place. So keys are read again whenever the server refuses the current ones: a
rotation during a long run costs one refused request. Without a mount the SDK's own chain is used (web identity,
workload identity, environment).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import STORAGE_SECRET_ENV

_KEY_ID, _SECRET, _SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKeys:
    """One identity's keys; a secret part never shows in a representation."""

    key_id: str
    secret: str = field(repr=False)
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A directory with one file a key, as Kubernetes mounts a Secret."""

    directory: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Credentials | None":
        """The mounted Secret that the environment names, or None when the SDK's own chain is to be used."""
        directory = environment.get(STORAGE_SECRET_ENV)
        return cls(Path(directory)) if directory else None

    def read(self, secret: str = "") -> AccessKeys:
        """The keys as they are now.

        Args:
            secret: the Secret's name, for the message.

        Raises:
            TrainerError: a key is missing, empty or unreadable; all of them are named.
        """
        values = {name: self._value(name) for name in (_KEY_ID, _SECRET, _SESSION)}
        if missing := [name for name in (_KEY_ID, _SECRET) if not values[name]]:
            raise TrainerError(
                FailureReason.STORAGE_ACCESS_DENIED,
                f"the Secret {secret} of storage.secretRef is missing in this namespace or has no "
                f"{' and no '.join(missing)}: it needs the keys {_KEY_ID} and {_SECRET}, and {_SESSION} for temporary "
                "credentials",
            )
        return AccessKeys(key_id=values[_KEY_ID], secret=values[_SECRET], session=values[_SESSION] or None)

    def _value(self, name: str) -> str:
        """A key's value without the line end that `kubectl create secret --from-file` keeps; empty when absent."""
        try:
            return (self.directory / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise TrainerError(
                FailureReason.STORAGE_ACCESS_DENIED,
                f"key {name} of the mounted storage Secret cannot be read: {type(error).__name__}",
            ) from None
