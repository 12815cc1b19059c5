"""The archives made here are what containerd imports."""

import hashlib
import io
import json
import tarfile

from localcluster.pause_image import docker_archive


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}


def test_an_image_of_one_layer() -> None:
    files = members(docker_archive("localhost/a:1", {"run": b"program"}, entrypoint="/run"))
    (manifest,) = json.loads(files["manifest.json"])
    config = json.loads(files[manifest["Config"]])
    layer = files[manifest["Layers"][0]]
    assert manifest["RepoTags"] == ["localhost/a:1"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert config["config"]["Entrypoint"] == ["/run"]
    assert members(layer) == {"run": b"program"}


def test_the_same_files_are_the_same_bytes() -> None:
    first, second = (docker_archive("localhost/a:1", {"run": b"x"}, entrypoint="/run") for _ in range(2))
    assert first == second
