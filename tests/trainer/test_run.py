"""A whole run from a recipe to a committed adapter, in this process."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_trainer.contract.layout import FINGERPRINT_DIGITS
from finetune_trainer.contract.termination import Outcome
from trainer.running import QUESTIONS, LocalRun, folder_of, manifest_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]


def test_adapter_is_committed_with_its_checksums(local_run: Runs) -> None:
    run = local_run(QUESTIONS)

    result = run()

    manifest = manifest_of(result)
    place = Path(result.output.manifest_uri.removeprefix("file://")).parent
    assert result.outcome is Outcome.SUCCEEDED
    assert place.name == result.fingerprint[:FINGERPRINT_DIGITS]
    assert manifest.adapter == "1-writer-o"
    assert folder_of(result) == place / "1-writer-o"
    for file in manifest.files:
        content = (place / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    on_disk = {path.relative_to(place).as_posix() for path in folder_of(result).rglob("*") if path.is_file()}
    assert on_disk == {file.path for file in manifest.files}
    assert manifest.rows == len(QUESTIONS)
    assert set(manifest.metrics) == {"loss", "steps", "tokens"}
