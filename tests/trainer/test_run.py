"""A whole run from a recipe to a committed adapter, what is there already, and who was first."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.latest import Latest
from finetune_trainer.contract.layout import FINGERPRINT_DIGITS
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import Outcome
from trainer.running import QUESTIONS, LocalRun, adapter_files, folder_of, manifest_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_adapter_is_committed_with_its_checksums(local_run: Runs) -> None:
    result = local_run(QUESTIONS)()

    manifest = manifest_of(result)
    place = Path(result.output.manifest_uri.removeprefix("file://")).parent
    assert result.outcome is Outcome.SUCCEEDED
    assert place.name == result.fingerprint[:FINGERPRINT_DIGITS]
    assert folder_of(result) == place / manifest.adapter == place / "1-writer-o"
    for file in manifest.files:
        content = (place / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    assert _files(place).keys() == {file.path for file in manifest.files} | {"manifest.json"}
    assert manifest.rows == len(QUESTIONS)
    assert set(manifest.metrics) == {"loss", "steps", "tokens"}
    assert not {"job", "storage"} & manifest.recipe.keys()
    assert manifest.recipe["lora"]["rank"] == 4
    (data,) = manifest.dataset
    assert data.sha256 == hashlib.sha256(Path(data.uri.removeprefix("file://")).read_bytes()).hexdigest()


def test_digest_is_the_manifests(local_run: Runs) -> None:
    result = local_run(QUESTIONS)()

    content = Path(result.output.manifest_uri.removeprefix("file://")).read_bytes()
    assert result.output.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert json.loads(content)["fingerprint"] == result.fingerprint


def test_newest_run_is_pointed_to_and_a_pointer_that_fails_fails_nothing(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    pointer = run.folder / "out" / "tiny" / "latest.json"

    first = run()

    latest = Latest.model_validate_json(pointer.read_bytes())
    assert (latest.manifest, latest.digest) == (first.output.manifest_uri, first.output.digest)
    assert (latest.adapter, latest.fingerprint) == (first.output.uri, first.fingerprint)
    assert latest.created == manifest_of(first).created

    pointer.unlink()
    pointer.mkdir()
    assert run.changed(training={"seed": 1})().outcome is Outcome.SUCCEEDED


def test_same_run_takes_the_adapter_that_is_there(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    first = run()
    before = _files(run.folder / "out")
    again = run.changed(training={"microBatchSize": 1, "loggingSteps": 5})

    second = again()

    assert second.outcome is Outcome.REUSED
    assert (second.output, second.fingerprint) == (first.output, first.fingerprint)
    assert _files(run.folder / "out") == before
    assert [progress.stage for progress in again.seen] == [Stage.STARTING], "nothing was fetched, loaded or trained"


def test_run_that_differs_goes_beside_it(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    first = run()

    second = run.changed(training={"seed": 1})()

    assert second.outcome is Outcome.SUCCEEDED
    assert second.fingerprint != first.fingerprint


def test_existing_adapter_is_a_conflict_when_asked_so(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    run()

    with pytest.raises(TrainerError, match=r"manifest\.json is there already") as caught:
        run.changed(output={"onExisting": "Fail"})()

    assert caught.value.reason is FailureReason.OUTPUT_CONFLICT


def test_replace_trains_again_and_puts_the_same_weights(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    first = run()
    again = run.changed(output={"onExisting": "Replace"}, job={"name": "tiny", "attempt": 2})

    second = again()

    assert second.outcome is Outcome.SUCCEEDED
    assert second.output.digest != first.output.digest
    assert manifest_of(second).adapter == "2-writer-o"
    assert adapter_files(folder_of(second)) == adapter_files(folder_of(first))


@pytest.mark.parametrize("mode", ["Fail", "Replace"])
def test_next_attempt_takes_what_its_own_job_has_committed(mode: str, local_run: Runs) -> None:
    """The pod went after the commit and before its exit code was seen."""
    run = local_run(QUESTIONS, output={"onExisting": mode}, job={"uid": "uid-1"})
    first = run()
    before = _files(run.folder / "out")
    retry, other = run.changed(job={"attempt": 2}), run.changed(job={"uid": "uid-2"})
    retry.writer = other.writer = "another-pod"

    second = retry()

    assert (second.outcome, second.output) == (Outcome.REUSED, first.output)
    assert _files(run.folder / "out") == before
    if mode == "Fail":
        with pytest.raises(TrainerError, match="is there already"):
            other()
    else:
        assert other().output.digest != first.output.digest


def test_of_two_pods_of_a_job_that_replaces_the_first_one_stands(local_run: Runs, tmp_path: Path) -> None:
    run = local_run(QUESTIONS, output={"onExisting": "Replace"}, job={"uid": "uid-1"})
    elsewhere = run.changed(output={"uri": f"file://{tmp_path}/elsewhere"})
    elsewhere.writer = "the-other-pod"
    elsewhere()
    run.on_progress = lambda progress: _arrive(progress, tmp_path)

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.SUPERSEDED
    assert _files(tmp_path / "out") == _files(tmp_path / "elsewhere")


def test_other_pod_that_commits_first_wins(local_run: Runs, tmp_path: Path) -> None:
    """The other pod's adapter appears while this one trains, after it has looked for one."""
    run = local_run(QUESTIONS)
    elsewhere = run.changed(output={"uri": f"file://{tmp_path}/elsewhere"})
    elsewhere.writer = "the-other-pod"
    elsewhere()
    run.on_progress = lambda progress: _arrive(progress, tmp_path)

    with pytest.raises(TrainerError) as caught:
        run()

    assert caught.value.reason is FailureReason.SUPERSEDED
    assert _files(tmp_path / "out") == _files(tmp_path / "elsewhere"), "this pod's files are gone"


def _arrive(progress: Progress, folder: Path) -> None:
    if progress.stage is Stage.SAVING:
        shutil.copytree(folder / "elsewhere", folder / "out")
