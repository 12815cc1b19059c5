"""Downloads the output of a run and checks it against its manifest, as a user would."""

import hashlib
import json
from pathlib import Path
from typing import Any

from demo.s3 import keys_under, s3_client
from localcluster import Target


def download(target: Target, status: dict[str, Any], folder: Path) -> Path:
    """Downloads all files of the run that the status names. Returns the folder with the manifest."""
    client = s3_client(target.s3)
    run = status["output"]["manifestUri"].rsplit("/", 1)[0]
    bucket, _, prefix = run.removeprefix("s3://").partition("/")
    for key in keys_under(client, bucket, f"{prefix}/"):
        path = folder / key.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path))
    return folder


def verified_manifest(run: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest after checking it and every file.

    The manifest's digest must be that of the status. The size and SHA-256 of every file must be those of the manifest.

    Raises:
        AssertionError: a value differs, or there is a file that the manifest does not name.
    """
    content = (run / "manifest.json").read_bytes()
    assert status["output"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
    manifest: dict[str, Any] = json.loads(content)
    assert manifest["files"]
    for file in manifest["files"]:
        stored = (run / file["path"]).read_bytes()
        assert len(stored) == file["size"], file["path"]
        assert hashlib.sha256(stored).hexdigest() == file["sha256"], file["path"]
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert found == {"manifest.json", *(file["path"] for file in manifest["files"])}
    return manifest
