"""Keys from a mounted Secret."""

from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.credentials import Credentials


def test_no_mount_means_the_sdks_own_chain() -> None:
    assert Credentials.from_environment({}) is None
    assert Credentials.from_environment({"FINETUNE_STORAGE_SECRET": ""}) is None


def test_keys_without_their_line_ends(tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("AKIA\n")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("secret\r\n")
    credentials = Credentials.from_environment({"FINETUNE_STORAGE_SECRET": str(tmp_path)})
    assert credentials is not None
    keys = credentials.read()
    assert (keys.key_id, keys.secret, keys.session) == ("AKIA", "secret", None)
    assert "secret" not in repr(keys)
    (tmp_path / "AWS_SESSION_TOKEN").write_text("token")
    assert credentials.read().session == "token"


def test_every_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("\n")
    with pytest.raises(TrainerError, match="no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY") as raised:
        Credentials(tmp_path).read()
    assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED
