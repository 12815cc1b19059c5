"""From an hf:// model to an adapter: preflight and training as pods run them, against a small Hub."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import hubserver
from finetune_trainer.contract.manifest import Manifest
from finetune_trainer.contract.termination import Outcome
from trainer.hub_job import HubJob
from trainer.running import QUESTIONS
from trainer.test_hub_refusals import ROUTES

pytestmark = pytest.mark.trainer

TOKEN = "hf_thisTokenIsNeverShown"
NOT_NEEDED = {
    "README.md": b"# tiny",
    "pytorch_model.bin": b"\x80\x02pickled",
    "training_args.bin": b"\x80\x02pickled",
    "consolidated.safetensors": b"the same weights once more",
    "modeling_tiny.py": b"raise SystemExit",
    "onnx/model.onnx": b"onnx",
    "original/model.safetensors": b"the original's weights",
}


def test_a_gated_model_is_checked_pinned_and_trained(tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    with hubserver.running() as hub:
        hub.readers[TOKEN] = {"org/tiny"}
        model = hub.add("org/tiny", {**tiny_files, **NOT_NEEDED}, gated=True)
        commit = model.refs["v1"] = model.refs["main"]
        uri = {"uri": "hf://org/tiny"}

        checked = HubJob(folder=tmp_path, endpoint=hub.endpoint, model=uri, token=TOKEN).preflight()

        assert checked.code == 0, checked.everything
        assert checked.message.preflight is not None
        assert checked.message.preflight.model_revision == commit
        fetched = [item.path.rsplit("/", 1)[-1] for item in hub.requests if item.method == "GET"]
        tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
        assert set(fetched) == {"main", "config.json"} | tokenizer, "the description, and what counting tokens takes"

        # The branch moves on, to files of another size; the operator hands the commit of preflight on.
        model.commit({**tiny_files, "config.json": tiny_files["config.json"] + b"\n"})
        hub.requests.clear()
        pinned = {**uri, "revision": checked.message.preflight.model_revision}
        trained = HubJob(folder=tmp_path, endpoint=hub.endpoint, model=pinned, token=TOKEN).train()

        assert trained.code == 0, trained.everything
        assert trained.message.outcome is Outcome.SUCCEEDED
        assert trained.message.fingerprint == checked.message.fingerprint
        assert trained.message.progress is not None
        needed_files = {name: len(content) for name, content in tiny_files.items()}
        assert (
            trained.message.progress.bytes_downloaded
            == sum(needed_files.values()) + (tmp_path / "train.jsonl").stat().st_size
        )
        assert _names(hub) == {*needed_files, "README.md"}, (
            "safetensors, tokenizer, configuration; the card for its licence"
        )

        output = trained.message.output
        assert output is not None
        assert output.base_model == "org/tiny"
        manifest = Manifest.model_validate_json(Path(output.manifest_uri.removeprefix("file://")).read_bytes())
        assert (manifest.base_model, manifest.base_model_revision) == ("org/tiny", commit)
        config = json.loads((Path(output.uri.removeprefix("file://")) / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", commit)

        # A tag of the same commit is the same model: nothing is trained twice.
        tagged = {**uri, "revision": "v1"}
        reused = HubJob(folder=tmp_path, endpoint=hub.endpoint, model=tagged, token=TOKEN).preflight()
        assert (reused.message.outcome, reused.message.output) == (Outcome.REUSED, output)

        for end in (checked, trained, reused):
            assert TOKEN not in end.everything
        for path in (tmp_path / "out").rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
        assert {item.authorization for item in hub.requests if item.host == "hub"} == {f"Bearer {TOKEN}"}
        assert {item.authorization for item in hub.requests if item.host == "store"} == {None}, "a CDN is no Hub"
        assert [item for item in hub.requests if not ROUTES.fullmatch(f"{item.method} {item.path}")] == []
        assert [item.user_agent for item in hub.requests if re.search("torch|agent/", item.user_agent)] == []


CARD = b"""---
configs:
- config_name: en
  data_files: en.jsonl
- config_name: de
  data_files:
  - split: train
    path: de/train-*
  - split: test
    path: de/test.jsonl.gz
---
"""


def test_data_alone_comes_from_the_hub(tiny_model: Path, tmp_path: Path) -> None:
    """A gated data set: its config and splits, the commit that preflight finds, and the token of the Secret."""
    train, other = QUESTIONS[:6], QUESTIONS[6:8]
    files = {
        "README.md": CARD,
        "de/train-00000-of-00002.jsonl": _jsonl(train[:3]),
        "de/train-00001-of-00002.jsonl": _jsonl(train[3:]),
        "de/test.jsonl.gz": gzip.compress(_jsonl(other), mtime=0),
        "en.jsonl": b"not read",
    }
    with hubserver.running() as hub:
        hub.readers[TOKEN] = {"datasets/org/name"}
        data = hub.add("datasets/org/name", files, gated=True)
        commit = data.refs["main"]
        job = HubJob(
            folder=tmp_path,
            endpoint=hub.endpoint,
            model={"uri": f"file://{tiny_model}"},
            token=TOKEN,
            dataset={"uri": "hf://datasets/org/name/de", "validation": {"split": "test"}},
        )

        checked = job.preflight()

        assert checked.code == 0, checked.everything
        assert checked.message.preflight is not None
        assert checked.message.preflight.dataset_revisions == {"org/name": commit}
        assert (checked.message.preflight.rows, f"commit {commit}" in checked.stdout) == (6, True), checked.stdout

        # The branch moves on, and the operator hands the commit of preflight on.
        data.commit({**files, "de/train-00000-of-00002.jsonl": _jsonl(other)})
        trained = replace(job, dataset_revisions=checked.message.preflight.dataset_revisions).train()
        moved = job.preflight()

    assert trained.code == 0, trained.everything
    assert trained.message.output is not None
    manifest = Manifest.model_validate_json(
        Path(trained.message.output.manifest_uri.removeprefix("file://")).read_bytes()
    )
    assert manifest.fingerprint == checked.message.fingerprint != moved.message.fingerprint
    read = {item.uri.removeprefix("hf://datasets/org/name/"): item.revision for item in manifest.dataset}
    assert read == dict.fromkeys([name for name in files if name.startswith("de/train")], commit)
    assert manifest.data is not None
    assert (manifest.rows, manifest.data.validation) == (6, 2)
    for end in (checked, trained, moved):
        assert TOKEN not in end.everything
    assert {item.authorization for item in hub.requests if item.host == "hub"} == {f"Bearer {TOKEN}"}


def _jsonl(rows: Sequence[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_an_adapter_to_continue_from_has_a_revision(tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    def files(rank: int) -> dict[str, bytes]:
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 32, "target_modules": ["q_proj"]}
        return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b"weights"}

    with hubserver.running() as hub:
        hub.add("org/tiny", tiny_files)
        adapter = hub.add("org/first", files(rank=4))
        adapter.refs["v1"] = adapter.refs["main"]
        adapter.commit(files(rank=8))
        ends = [
            HubJob(
                folder=tmp_path,
                endpoint=hub.endpoint,
                model={"uri": "hf://org/tiny"},
                lora={"initialAdapterUri": "hf://org/first", **revision},
            ).preflight()
            for revision in ({"initialAdapterRevision": "v1"}, {})
        ]

    assert [end.message.outcome for end in ends] == [Outcome.SUCCEEDED, Outcome.FAILED], ends
    assert "its rank is 8, and spec.lora.rank is 4" in ends[1].message.message


def test_jobs_share_a_cache_of_models(tiny_files: dict[str, bytes], tmp_path: Path) -> None:
    model = {"uri": "hf://org/tiny", "cache": f"file://{tmp_path / 'cache'}"}
    manifests = []
    with hubserver.running() as hub:
        hub.add("org/tiny", {**tiny_files, **NOT_NEEDED})
        for name, fetched in (("first", {*tiny_files, "README.md"}), ("second", {"README.md"})):
            (tmp_path / name).mkdir()
            hub.requests.clear()
            end = HubJob(folder=tmp_path / name, endpoint=hub.endpoint, model=model).train()

            assert end.code == 0, end.everything
            assert _names(hub) == fetched
            assert not list((tmp_path / name).rglob("model.safetensors")), "the pod's own disk stays free"
            assert end.message.output is not None
            manifests.append(Path(end.message.output.manifest_uri.removeprefix("file://")).read_bytes())

    [entry] = (tmp_path / "cache").iterdir()
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == tiny_files
    one, other = map(Manifest.model_validate_json, manifests)
    assert one.fingerprint == other.fingerprint
    weights = [{file.sha256 for file in item.files if file.path.endswith(".safetensors")} for item in (one, other)]
    assert weights[0] == weights[1]


def _names(hub: hubserver.Hub) -> set[str]:
    """Files that were fetched, by their names in the repository."""
    [model] = hub.models.values()
    by_digest = {
        hashlib.sha256(content).hexdigest(): name for files in model.commits.values() for name, content in files.items()
    }
    asked = {item.path for item in hub.requests if item.method == "GET" and "/revision/" not in item.path}
    return {by_digest.get(path.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1]) for path in asked}


def test_other_models_are_checked_without_the_hubs_client(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    recipe = {
        "job": {"name": "tiny"},
        "model": {"uri": f"file://{tiny_model}"},
        "dataset": {"uri": f"file://{tmp_path / 'train.jsonl'}"},
        "output": {"uri": f"file://{tmp_path / 'out'}"},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    program = (
        "import sys\n"
        "from finetune_trainer.__main__ import main\n"
        "from finetune_trainer.contract.recipe.output import StorageSpec\n"
        "from finetune_trainer.contract.uri import parse_uri\n"
        "from finetune_trainer.storage.registry import StoreRegistry\n"
        "code = main(['preflight', '--recipe', sys.argv[1]], {})\n"
        "StoreRegistry(StorageSpec(), None)(parse_uri('s3://bucket/key'))\n"
        "print([name for name in ('huggingface_hub', 'httpx2', 'hf_xet') if name in sys.modules])\n"
        "sys.exit(code)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "recipe.json")], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr
