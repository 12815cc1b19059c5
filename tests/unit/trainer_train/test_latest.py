"""The pointer names the newest run, whatever the order in which runs end."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.latest import Latest
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.output.latest import point_to
from finetune_trainer.storage.local import LocalStore

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def _latest(name: str, minutes: int) -> Latest:
    return Latest(
        manifest=f"s3://models/{name}/manifest.json", digest="sha256:0", adapter=f"s3://models/{name}/1-a",
        fingerprint=name, created=NOON + timedelta(minutes=minutes),
    )  # fmt: skip


def _named(folder: Path) -> str:
    found = Latest.read((folder / "latest.json").read_bytes())
    assert found is not None
    return found.fingerprint


@pytest.fixture
def uri(tmp_path: Path) -> Uri:
    return parse_uri(f"file://{tmp_path}/latest.json")


def test_a_newer_run_takes_the_pointer_and_an_older_one_leaves_it(tmp_path: Path, uri: Uri) -> None:
    store = LocalStore(tmp_path)

    assert point_to(_latest("first", 0), store, uri)
    assert point_to(_latest("second", 10), store, uri)
    assert not point_to(_latest("late", 5), store, uri)

    assert _named(tmp_path) == "second"


def test_a_run_that_replaces_itself_takes_it_again(tmp_path: Path, uri: Uri) -> None:
    store = LocalStore(tmp_path)
    point_to(_latest("first", 0), store, uri)

    assert point_to(_latest("first", 1), store, uri)


def test_a_damaged_pointer_is_replaced(tmp_path: Path, uri: Uri) -> None:
    (tmp_path / "latest.json").write_text("half a poin")

    assert point_to(_latest("first", 0), LocalStore(tmp_path), uri)
    assert _named(tmp_path) == "first"


@pytest.mark.parametrize(("minutes", "stands"), [(-1, "mine"), (1, "other")])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_ends_at_the_same_moment_is_seen(
    tmp_path: Path, uri: Uri, before: bool, minutes: int, stands: str
) -> None:
    class Overtaken(LocalStore):
        """Another run moves the pointer between this one's look and its write."""

        overtaken = False

        def read(self, place: Uri) -> bytes | None:
            found = super().read(place)
            if not self.overtaken:
                self.overtaken = True
                point_to(_latest("other", minutes), LocalStore(tmp_path), place)
            return found

    if before:
        point_to(_latest("before", -10), LocalStore(tmp_path), uri)

    assert point_to(_latest("mine", 0), Overtaken(tmp_path), uri) is (stands == "mine")
    assert _named(tmp_path) == stands


def test_storage_that_fails_says_so(tmp_path: Path, uri: Uri) -> None:
    (tmp_path / "latest.json").mkdir()

    with pytest.raises(TrainerError):
        point_to(_latest("first", 0), LocalStore(tmp_path), uri)
