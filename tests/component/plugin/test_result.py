"""`kubectl finetune result`: the adapter from a real S3 server, whole and verified, or nothing."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import s3server
from component.plugin.conftest import User
from finetune_trainer.contract.manifest import Manifest, ManifestFile

RUN = "adapters/job/0123456789ab"
FILES = {
    "2-0a1b2c3d/adapter_config.json": b'{"r": 16}',
    "2-0a1b2c3d/adapter_model.safetensors": bytes(range(256)) * 4096,
    "2-0a1b2c3d/runs/events": b"events",
    "2-0a1b2c3d-merged/model.safetensors": b"merged",
}


@pytest.fixture(scope="module")
def server() -> Iterator[s3server.S3Server]:
    with s3server.running() as running:
        yield running


@dataclass
class Bucket:
    """The output of a job in a bucket."""

    user: User
    server: s3server.S3Server

    def holds(self, name: str = "job", **manifest: Any) -> None:
        """Puts the files and a manifest, and lets the job report them. Arguments change the manifest."""
        for path, data in FILES.items():
            self.server.put(f"{RUN}/{path}", data)
        files = [
            ManifestFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in FILES.items()
        ]
        made = Manifest(
            fingerprint="0123456789ab",
            adapter="2-0a1b2c3d",
            merged="2-0a1b2c3d-merged",
            files=files,
            base_model="org/model",
            dataset=[],
            rank=16,
            target_modules=["q_proj"],
            attempt=2,
            writer="0a1b2c3d",
            created=datetime.now(UTC),
        )
        content = json.dumps({**made.to_dict(), **manifest}).encode()
        self.server.put(f"{RUN}/manifest.json", content)
        if name == "job":
            self.user.applies(name, storage={"endpoint": "http://s3.elsewhere:8333", "secretRef": {"name": "keys"}})
        run = f"s3://{s3server.BUCKET}/{RUN}"
        self.user.succeeds(
            name,
            output={
                "uri": f"{run}/2-0a1b2c3d",
                "mergedUri": f"{run}/2-0a1b2c3d-merged",
                "manifestUri": f"{run}/manifest.json",
                "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
                "sizeBytes": made.size,
                "baseModel": "org/model",
                "rank": 16,
                "metrics": {"loss": "0.5"},
            },
        )

    def download(self, target: Path, *more: str) -> Any:
        """Downloads the result."""
        return self.user.types("result", "job", "--to", target, "--endpoint", self.server.endpoint, *more)


@pytest.fixture
def bucket(user: User, server: s3server.S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.reader.secret_key)
    return Bucket(user, server)


def left(folder: Path) -> list[str]:
    """Everything in a folder but what the fixtures put there."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("kubeconfig", "job.yaml"))


def test_the_adapter_comes_whole_and_the_printed_code_names_its_folder(bucket: Bucket, tmp_path: Path) -> None:
    bucket.holds()
    said = bucket.download(tmp_path / "adapter")
    assert said.code == 0, said.err
    assert f'PeftModel.from_pretrained(model, "{tmp_path}/adapter")' in said.out
    assert "verified against the manifest" in said.err
    folder = tmp_path / "adapter"
    got = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert got == {name.partition("/")[2]: content for name, content in FILES.items() if "merged" not in name}
    again = bucket.download(tmp_path / "adapter")
    assert (again.code, "it was there already" in again.err) == (0, True)
    merged = bucket.download(tmp_path / "whole", "--merged")
    assert merged.code == 0
    assert (tmp_path / "whole/model.safetensors").read_bytes() == b"merged"
    assert left(tmp_path) == ["adapter", "whole"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\0" * (256 * 4096), "another SHA-256"), (b"short", "it was replaced"), (None, "is not there any more")],
)
def test_bytes_that_are_not_the_manifests_never_appear(
    bucket: Bucket, tmp_path: Path, content: bytes | None, words: str
) -> None:
    bucket.holds()
    key = f"{RUN}/2-0a1b2c3d/adapter_model.safetensors"
    if content is None:
        bucket.server.client().delete_object(Bucket=s3server.BUCKET, Key=key)
    else:
        bucket.server.put(key, content)
    said = bucket.download(tmp_path / "adapter")
    assert said.code == 1
    assert words in said.err
    assert left(tmp_path) == []


def test_a_manifest_that_was_exchanged_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    bucket.holds()
    bucket.server.put(f"{RUN}/manifest.json", b"{}")
    said = bucket.download(tmp_path / "adapter")
    assert (said.code, "somebody has replaced it" in said.err) == (1, True)


@pytest.mark.parametrize("path", ["../../outside", "2-0a1b2c3d/../../outside", "/etc/outside", "2-0a1b2c3d/a\\b"])
def test_a_file_outside_of_the_folder_is_refused(bucket: Bucket, tmp_path: Path, path: str) -> None:
    bucket.holds(files=[{"path": path, "size": 1, "sha256": "0" * 64}])
    said = bucket.download(tmp_path / "adapter")
    assert said.code == 1
    assert "no manifest: files" in said.err
    assert left(tmp_path) == []


def test_a_file_of_another_folder_of_the_run_is_not_of_the_adapter(bucket: Bucket, tmp_path: Path) -> None:
    bucket.holds(files=[{"path": "1-other/adapter_model.safetensors", "size": 1, "sha256": "0" * 64}])
    assert "names no file of 2-0a1b2c3d" in bucket.download(tmp_path / "adapter").err


def test_a_folder_with_other_files_stays_as_it_is(bucket: Bucket, tmp_path: Path) -> None:
    bucket.holds()
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "mine").write_text("mine")
    said = bucket.download(target)
    assert (said.code, "mine is not a file of the output" in said.err) == (1, True)
    assert (target / "mine").read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert bucket.download(link).code == 1
    assert left(tmp_path) == ["adapter", "link"]


def test_keys_that_are_refused_and_an_address_of_the_cluster_are_explained(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.holds()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    said = bucket.download(tmp_path / "adapter")
    assert said.code == 16
    assert "Keys come from this machine" in said.err
    wrong = bucket.user.types("result", "job", "--to", tmp_path / "adapter", "--endpoint", "ftp://x")
    assert (wrong.code, "spec.storage.endpoint" in wrong.err) == (2, True)


def test_the_facts_and_how_to_serve(user: User) -> None:
    user.applies("job")
    early = user.types("result", "job")
    assert (early.code, early.err) == (1, "job has no adapter (not seen); kubectl finetune watch job\n")
    user.succeeds("job")
    facts = user.types("result", "job").out
    assert "Adapter:     s3://models/adapters/job/0123456789ab/2-0a1b2c3d" in facts
    assert "  eval_loss: 0.75" in facts
    assert json.loads(user.types("result", "job", "-o", "json").out)["rank"] == 16
    assert user.types("result", "job", "--serve", "vllm").out.splitlines()[:2] == [
        "kubectl finetune result job --to job",
        "vllm serve org/model --tokenizer ./job --enable-lora --max-lora-rank 16 --lora-modules job=./job",
    ]
    kserve = yaml.safe_load(user.types("result", "job", "--serve", "kserve").out)
    assert kserve["spec"]["model"]["uri"] == "hf://org/model"
    assert kserve["spec"]["model"]["lora"]["adapters"][0]["uri"].endswith("2-0a1b2c3d")
    aibrix = yaml.safe_load(user.types("result", "job", "--serve", "aibrix").out)
    assert aibrix["spec"]["podSelector"]["matchLabels"]["model.aibrix.ai/name"] == "model"
    assert "--lora job.gguf" in user.types("result", "job", "--serve", "llamacpp").out


def test_an_adapter_that_vllm_does_not_load_gets_no_recipe_for_it(user: User) -> None:
    user.applies("job", lora={"variant": "dora"})
    user.succeeds("job")
    said = user.types("result", "job", "--serve", "kserve")
    assert said.code == 1
    assert "lora.variant: dora" in said.err
