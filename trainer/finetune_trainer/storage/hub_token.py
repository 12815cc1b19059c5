"""The Hub's access token, from a mounted Secret.

Every request reads the token again, so it uses a rotated token. A missing token fails only the check of the model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import HUB_TOKEN_ENV

_TOKEN = re.compile(r"[!-~]+")
"""Characters that an HTTP header may hold. For any other, the HTTP client's own error message would print the token."""


@dataclass(frozen=True, slots=True)
class HubToken:
    """The file with the token, as Kubernetes mounts a key of a Secret."""

    file: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "HubToken | None":
        """Returns the token's file that the environment names, or None when the recipe has no token."""
        file = environment.get(HUB_TOKEN_ENV)
        return cls(Path(file)) if file else None

    def read(self, denied: FailureReason = FailureReason.MODEL_ACCESS_DENIED) -> str:
        """Reads the token from the mounted file.

        `kubectl create secret --from-file` keeps a line end, which is removed here.

        Raises:
            TrainerError: `denied`. The token is missing, unreadable, empty, or has characters that no token
                has. The message does not contain the token.
        """
        try:
            text = self.file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise _no_token("is missing in this namespace or has no such key", denied) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _no_token(f"cannot be read ({type(error).__name__})", denied) from None
        if not text:
            raise _no_token("is empty", denied)
        if not _TOKEN.fullmatch(text):
            raise _no_token("holds blanks, line breaks or letters that no token has", denied)
        return text


def _no_token(why: str, denied: FailureReason) -> TrainerError:
    return TrainerError(
        denied,
        f"the Secret of model.tokenSecretRef {why}: put the Hub's access token (hf_…) there, alone, under the key "
        "that model.tokenSecretRef names",
    )
