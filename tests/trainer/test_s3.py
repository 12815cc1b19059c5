"""The run with everything in object storage: a real server, real keys."""

import json
from pathlib import Path

import pytest

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


def _recipe(server: s3server.S3Server, output: str = "s3://data/adapters") -> Recipe:
    return Recipe.model_validate(
        {
            "job": {"name": "tiny"},
            "model": {"uri": "s3://data/base"},
            "dataset": {"uri": "s3://data/rows/"},
            "lora": {"rank": 4},
            "training": {"maxSteps": 2, "batchSize": 8},
            "output": {"uri": output},
            "storage": server.spec.to_dict(),
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
        assert reporter.progress.bytes_uploaded == result.output.size_bytes
    return result


def test_model_data_and_adapter_in_s3(tiny_model: Path, tmp_path: Path) -> None:
    with s3server.running() as server:
        for path in tiny_model.iterdir():
            server.put(f"base/{path.name}", path.read_bytes())
        server.put("base/original/consolidated.00.pth", b"not to be fetched")
        server.put("rows/a.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[:10]).encode())
        server.put("rows/b.jsonl", "".join(json.dumps(row) + "\n" for row in QUESTIONS[10:]).encode())
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
