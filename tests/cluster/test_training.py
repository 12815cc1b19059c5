"""The whole path with the real trainer: a YAML, its way through the states, and the adapter that comes out."""

import hashlib
import json
from pathlib import Path
from typing import Any

from cluster.lab import Lab, condition, keys_under, s3_client

TINY_STEPS = 6


def download(lab: Lab, uri: str, folder: Path) -> None:
    """Everything under an s3:// prefix."""
    client = s3_client(lab.target.s3)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for key in keys_under(client, bucket, prefix.rstrip("/") + "/"):
        path = folder / key[len(prefix) :].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path))


def manifest_of(lab: Lab, status: dict[str, Any]) -> dict[str, Any]:
    """The manifest that the status names, after comparing its digest."""
    bucket, _, key = status["output"]["manifestUri"].removeprefix("s3://").partition("/")
    content = s3_client(lab.target.s3).get_object(Bucket=bucket, Key=key)["Body"].read()
    assert status["output"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest: dict[str, Any] = json.loads(content)
    return manifest


def test_a_yaml_becomes_a_checksummed_adapter(lab: Lab, tmp_path: Path) -> None:
    lab.apply("tiny", training={"maxSteps": TINY_STEPS, "batchSize": 4}, lora={"rank": 4, "alpha": 8})
    status = lab.until_finished("tiny", seconds=240)
    assert status["phase"] == "Succeeded", lab.picture()
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "PreflightPassed")["status"] == "True"
    assert status["preflight"]["rows"] == 64
    assert status["progress"]["display"] == f"100% {TINY_STEPS}/{TINY_STEPS}"
    assert status["output"]["rank"] == 4

    manifest = manifest_of(lab, status)
    run = status["output"]["manifestUri"].rsplit("/", 1)[0]
    download(lab, run, tmp_path)
    assert manifest["files"]
    for file in manifest["files"]:
        content = (tmp_path / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["size"]
    assert status["output"]["uri"] == f"{run}/{manifest['adapter']}"
    stored = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert stored == {"manifest.json", *(file["path"] for file in manifest["files"])}
    assert [len(lab.children("tiny", role)) for role in ("preflight", "train")] == [1, 1]


def test_the_same_yaml_again_trains_nothing(lab: Lab) -> None:
    lab.apply("again", training={"maxSteps": 1, "batchSize": 4})
    first = lab.until_finished("again", seconds=240)
    assert first["phase"] == "Succeeded", lab.picture()
    lab.kubectl("delete", "ftj", "again", "--cascade=foreground", timeout=180)
    lab.apply("again", training={"maxSteps": 1, "batchSize": 4})
    second = lab.until_finished("again")
    assert condition(second, "Succeeded")["reason"] == "OutputAlreadyExists"
    assert second["output"] == first["output"]
    assert lab.children("again", "train") == []


def test_nothing_that_was_applied_is_changed(lab: Lab) -> None:
    lab.apply("quiet", training={"maxSteps": 1, "batchSize": 4}, suspend=True)
    lab.until_phase("quiet", "Suspended")
    manifest = json.dumps(lab.manifest("quiet", training={"maxSteps": 1, "batchSize": 4}, suspend=True))
    assert lab.kubectl("diff", "-f", "-", stdin=manifest) == ""
