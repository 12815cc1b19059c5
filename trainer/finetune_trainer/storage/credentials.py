"""Access keys of object storage, from a mounted Secret.

The kubelet updates a mounted Secret in place. When the server refuses the current keys, the trainer reads them again.
So a rotation during a long run costs one refused request. Without a mounted Secret the SDK uses its own credential
chain (web identity, workload identity, environment).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import STORAGE_SECRET_ENV

_KEY_ID, _SECRET, _SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKeys:
    """The access keys of one identity. `repr` shows no secret part."""

    key_id: str
    secret: str = field(repr=False)
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A directory with one file per key, as Kubernetes mounts a Secret."""

    directory: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Credentials | None":
        """Returns the mounted Secret that the environment names. None means the SDK's own credential chain."""
        directory = environment.get(STORAGE_SECRET_ENV)
        return cls(Path(directory)) if directory else None

    def read(self, secret: str = "") -> AccessKeys:
        """Reads the keys from the mounted files.

        Args:
            secret: the Secret's name, for the message.

        Raises:
            TrainerError: STORAGE_ACCESS_DENIED. A key is missing, empty or unreadable. The message names every key
                that is missing.
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
        """Returns a key's value, or an empty string when the key is absent.

        `kubectl create secret --from-file` keeps a line end, which is removed here.
        """
        try:
            return (self.directory / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise TrainerError(
                FailureReason.STORAGE_ACCESS_DENIED,
                f"key {name} of the mounted storage Secret cannot be read: {type(error).__name__}",
            ) from None
