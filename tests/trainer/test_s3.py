"""The run with everything in object storage: a real server, real keys."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import httpfaults
import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.report import Reporter
from finetune_trainer.storage.credentials import Credentials
from finetune_trainer.storage.places import Places
from finetune_trainer.train.context import Context, Result
from finetune_trainer.train.run import run
from trainer.running import QUESTIONS

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[s3server.S3Server]:
    """A server with model and data."""
    with s3server.running() as running:
        for path in tiny_model.iterdir():
            running.put(f"base/{path.name}", path.read_bytes())
        running.put("base/original/consolidated.00.pth", b"not to be fetched")
        running.put("rows/a.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[:10]).encode())
        running.put("rows/b.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[10:]).encode())
        yield running


def _recipe(server: s3server.S3Server, output: str = "s3://data/adapters", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "job": {"name": "tiny"},
            "model": {"uri": "s3://data/base"},
            "dataset": {"uri": "s3://data/rows/"},
            "lora": {"rank": 4},
            "training": {"maxSteps": 2, "batchSize": 8},
            "output": {"uri": output},
            "storage": server.spec.to_dict(),
            **sections,
        }
    )


def _run(recipe: Recipe, credentials: Credentials, work: Path, writer: str) -> Result:
    work.mkdir()
    reporter = Reporter()
    result = run(
        recipe,
        Context(
            work=work, open_store=Places(recipe.storage, credentials), writer=writer, pvc_root=work, reporter=reporter
        ),
    )
    if result.outcome is Outcome.SUCCEEDED:
        assert reporter.progress.bytes_downloaded
        if recipe.checkpoint.every_steps is None:
            assert reporter.progress.bytes_uploaded == result.output.size_bytes
    return result


def test_model_data_and_adapter_in_s3(server: s3server.S3Server, tmp_path: Path) -> None:
    admin = s3server.mount(tmp_path / "admin", server.admin)
    recipe = _recipe(server)

    first = _run(recipe, admin, tmp_path / "first", "pod-one")

    assert first.outcome is Outcome.SUCCEEDED
    prefix = f"adapters/tiny/{first.fingerprint[:12]}/"
    manifest = Manifest.model_validate_json(server.get(f"{prefix}manifest.json"))
    assert first.output.base_model == "s3://data/base"
    assert {f"{prefix}{file.path}" for file in manifest.files} | {
        f"{prefix}manifest.json",
        "adapters/tiny/latest.json",
    } == set(server.keys("adapters/"))
    assert [item.uri for item in manifest.dataset] == ["s3://data/rows/a.jsonl", "s3://data/rows/b.jsonl"]
    assert not (tmp_path / "first" / "model" / "consolidated.00.pth").exists()
    config = json.loads(server.get(f"{prefix}{manifest.adapter}/adapter_config.json"))
    assert config["base_model_name_or_path"] == "s3://data/base"

    again = _run(recipe, admin, tmp_path / "again", "pod-two")
    assert (again.outcome, again.output) == (Outcome.REUSED, first.output)

    reader = s3server.mount(tmp_path / "reader", server.reader)
    with pytest.raises(TrainerError) as caught:
        _run(_recipe(server, "s3://data/elsewhere"), reader, tmp_path / "denied", "pod-three")
    assert caught.value.reason is FailureReason.STORAGE_ACCESS_DENIED
    assert server.keys("elsewhere/") == []


def test_a_server_that_misbehaves_gets_the_same_bytes(server: s3server.S3Server, tmp_path: Path) -> None:
    admin = s3server.mount(tmp_path / "admin", server.admin)
    often = {"checkpoint": {"everySteps": 1}}
    calm = _run(_recipe(server, "s3://data/calm", **often), admin, tmp_path / "calm", "pod")
    with httpfaults.running(server.endpoint) as faults:
        faults.plan = httpfaults.random_faults(seed=4, rate=0.2)
        recipe = _recipe(server, "s3://data/stormy", storage={"endpoint": faults.endpoint}, **often)
        stormy = _run(recipe, admin, tmp_path / "stormy", "pod")
        assert len(faults.counts()) > 4, "faults of several kinds"

    weights = [
        server.get(result.output.uri.removeprefix("s3://data/") + "/adapter_model.safetensors")
        for result in (calm, stormy)
    ]
    assert weights[0] == weights[1]
    left = [key for key in server.keys("stormy/") if key.endswith("manifest.json") or "checkpoints" in key]
    assert left == [stormy.output.manifest_uri.removeprefix("s3://data/")]
    assert list((tmp_path / "stormy").rglob("*.part")) == []
