"""Which adapter counts as this very run's, of the manifests that may stand at its place."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.output.publish import RunLocation, publish
from finetune_trainer.output.reuse import reusable_output
from finetune_trainer.storage.local import LocalStore
from sleeping import SleepingClock
from unit.trainer_train.recipes import recipe

FINGERPRINT = "0123456789ab" + "0" * 52
WEIGHTS = b"weights of a run"
FILE = {"path": "1-first/adapter_model.safetensors", "size": len(WEIGHTS), "sha256": sha256(WEIGHTS).hexdigest()}
OWN = "11111111-1111-1111-1111-111111111111"


class Run:
    """The place of a run on this disk, with an adapter and a manifest that fits it."""

    def __init__(self, root: Path) -> None:
        self.root, self.place = root, root / "out" / "support-bot" / FINGERPRINT[:12]
        (self.place / "1-first").mkdir(parents=True)
        (self.place / "1-first" / "adapter_model.safetensors").write_bytes(WEIGHTS)
        self.manifest: dict[str, Any] = {
            "version": 1,
            "fingerprint": FINGERPRINT,
            "adapter": "1-first",
            "files": [FILE],
            "baseModel": "org/name",
            "dataset": [],
            "rank": 16,
            "targetModules": ["q_proj"],
            "attempt": 1,
            "writer": "first",
            "jobUid": "another-job",
            "created": "2026-01-01T00:00:00Z",
        }

    def write(self, **fields: Any) -> None:
        """Puts the manifest, with these fields instead."""
        (self.place / "manifest.json").write_text(json.dumps(self.manifest | fields))

    def look(self, mode: str, uid: str = OWN) -> OutputRecord | None:
        """What a run of this recipe takes."""
        asked = recipe(
            job={"uid": uid},
            model={"uri": "hf://org/name"},
            output={"uri": f"file://{self.root}/out", "onExisting": mode},
        )
        return reusable_output(asked, FINGERPRINT, lambda _: LocalStore(self.root))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_an_adapter_that_fits_is_taken_whoever_made_it(run: Run) -> None:
    run.write()

    found = run.look("Reuse")

    assert found is not None
    assert found.uri == f"file://{run.place}/1-first"
    assert found.digest == "sha256:" + sha256((run.place / "manifest.json").read_bytes()).hexdigest()


def outside(run: Run) -> dict[str, Any]:
    """An adapter of another run, named by a path that climbs, whole and with the right checksum."""
    elsewhere = run.place.parent / "evil"
    elsewhere.mkdir()
    (elsewhere / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return {"adapter": "../evil", "files": [FILE | {"path": "../evil/adapter_model.safetensors"}]}


def beside(run: Run) -> dict[str, Any]:
    """A file of the run's place, and none of the adapter's folder."""
    (run.place / "notes").write_bytes(WEIGHTS)
    return {"files": [FILE | {"path": "notes"}]}


Forgery = dict[str, Any] | Callable[[Run], dict[str, Any]]
FORGED: dict[str, tuple[Forgery, str]] = {
    "other bytes of the right size": ({"files": [FILE | {"sha256": "0" * 64}]}, "has the SHA-256"),
    "another size": ({"files": [FILE | {"size": 3}]}, "missing or of another size"),
    "another fingerprint": ({"fingerprint": FINGERPRINT[:12] + "f" * 52}, "its fingerprint is 0123456789abfff"),
    "another base model": ({"baseModel": "evil/name"}, "its base model is evil/name, and this run's is org/name"),
    "another rank": ({"rank": 64}, "its rank is 64, and this run's is 16"),
    "rank 0": ({"rank": 0}, "rank: "),
    "no files": ({"files": []}, "names no file of the adapter's folder"),
    "no file of the adapter": (beside, "names no file of the adapter's folder"),
    "a file twice": ({"files": [FILE, FILE]}, "names a file twice"),
    "a path that climbs": (outside, "must be a path below its place"),
    "an absolute path": ({"adapter": "/etc"}, "must be a path below its place"),
    "another bucket": ({"adapter": "s3://evil/adapter"}, "must be a path below its place"),
    "a merged model that climbs": ({"merged": "../../evil"}, "must be a path below its place"),
    "a merged model without files": ({"merged": "1-first-merged"}, "no file of the merged model's folder"),
    "control characters": ({"adapter": "1-first\x1b]0;evil\x07"}, "must not hold control characters"),
    "control characters in a metric": ({"metrics": {"loss\r": 1.0}}, "must not hold control characters"),
    "a name of 1,500 characters": ({"baseModel": "n" * 1500}, "at most 1024 characters"),
    "a job of 1,500 characters": ({"jobUid": "n" * 1500}, "at most 1024 characters"),
    "a number over 2^63": ({"files": [FILE | {"size": 10**30}]}, "less than or equal to"),
    "version 99": ({"version": 99}, "its version is 99, and this trainer reads version 1"),
    "no JSON": ({"files": "none"}, "it is no manifest: files"),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("uid", ["another-job", OWN], ids=["of another job", "says it is this job's"])
def test_a_manifest_that_does_not_fit_is_no_adapter(run: Run, name: str, uid: str) -> None:
    forged, said = FORGED[name]
    fields = forged(run) if callable(forged) else forged
    run.write(**{"jobUid": uid} | fields)

    with pytest.raises(TrainerError) as caught:
        run.look("Reuse")

    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT
    message = caught.value.message
    assert said in message
    assert f"{run.place}/manifest.json is there, but it is not the manifest of this run" in message
    assert message.isprintable()
    assert message.endswith("delete that folder, or set output.onExisting to Replace")
    with pytest.raises(TrainerError) as caught:
        run.look("Fail")
    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT
    assert run.look("Replace") is None, "the run trains"


def test_a_manifest_that_only_says_it_is_this_jobs_gives_way(run: Run) -> None:
    """Whoever sees the job knows its UID: a forged manifest must not make the trained adapter superseded."""
    run.write(jobUid=OWN, files=[FILE | {"sha256": "0" * 64}])
    made = run.root / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"others")
    uri = parse_uri(f"file://{run.place}")

    _publish(run.root, uri, made)

    assert json.loads((run.place / "manifest.json").read_text())["adapter"] == "2-second"


def test_what_this_job_has_committed_stands(run: Run) -> None:
    run.write(jobUid=OWN)
    made = run.root / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"others")

    with pytest.raises(TrainerError) as caught:
        _publish(run.root, parse_uri(f"file://{run.place}"), made)

    assert caught.value.reason is FailureReason.SUPERSEDED
    assert run.look("Fail") is not None, "an attempt whose end was lost"


def _publish(root: Path, place: Uri, made: Path) -> None:
    def describe(files: list[ManifestFile]) -> Manifest:
        return Manifest(
            fingerprint=FINGERPRINT, adapter="2-second", files=files, base_model="org/name", dataset=[], rank=16,
            target_modules=["q_proj"], attempt=2, writer="second", job_uid=OWN,
            created=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    retry = SleepingClock().retry_policy()
    where = RunLocation(store=LocalStore(root), run=place)
    publish(where, {"2-second": made}, describe, OnExisting.REPLACE, lambda _: None, retry)
