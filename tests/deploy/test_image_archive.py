"""Archives changed at their end: right content, little written, never a half-written file in place."""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripts.build_images import record
from scripts.build_images.archive import leading_layers, write

NAME = "localhost/finetune-test:1"
BASE, CUDA, TORCH = b"base" * 1000, b"cuda" * 300_000, b"torch" * 200_000


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Built:
    """An image in a builder's storage, exported as buildah does it."""

    layers: Sequence[bytes]

    @property
    def configuration(self) -> bytes:
        return json.dumps({"rootfs": {"diff_ids": [f"sha256:{digest(layer)}" for layer in self.layers]}}).encode()

    def save(self, path: Path) -> None:
        names = [f"{digest(layer)}.tar" for layer in self.layers]
        image = [{"Config": "configuration.json", "RepoTags": [NAME], "Layers": names}]
        files = [*zip(names, self.layers, strict=True), ("configuration.json", self.configuration)]
        with tarfile.open(path, "w") as tar:
            for name, content in [*files, ("manifest.json", json.dumps(image).encode())]:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))

    def export(self, layout: Path) -> None:
        blobs = layout / "blobs/sha256"

        def put(content: bytes) -> dict[str, object]:
            (blobs / digest(content)).write_bytes(content)
            return {"digest": f"sha256:{digest(content)}", "size": len(content)}

        def layer_blob(layer: bytes) -> dict[str, object]:
            if (blobs / digest(layer)).exists():
                return {"digest": f"sha256:{digest(layer)}", "size": (blobs / digest(layer)).stat().st_size}
            return put(gzip.compress(layer))

        manifest = {"layers": [layer_blob(layer) for layer in self.layers], "config": put(self.configuration)}
        index = {"manifests": [put(json.dumps(manifest).encode())]}
        (layout / "index.json").write_text(json.dumps(index))

    def write(self, archive: Path) -> int:
        return write(archive, NAME, save=self.save, export=self.export, scratch=archive.parent)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "image.tar"


def check(archive: Path, image: Built) -> None:
    """The archive holds exactly this image, and GNU tar reads it to its end."""
    with tarfile.open(archive) as tar:
        files = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    [entry] = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == [NAME]
    assert files[entry["Config"]] == image.configuration
    assert [files[name] for name in entry["Layers"]] == list(image.layers)
    assert entry["Layers"] == [f"{digest(layer)}.tar" for layer in image.layers]
    assert len(files) == len(image.layers) + 2
    assert archive.stat().st_size < sum(map(len, image.layers)) + 20_000, "nothing of the old one is left at the end"
    subprocess.run(["tar", "-tf", archive], check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name], "nothing is left"


def test_a_code_change_writes_only_the_code(archive: Path) -> None:
    Built([BASE, CUDA, TORCH, b"code 1"]).write(archive)
    file = archive.stat().st_ino
    for code in (b"code 2" * 5000, b"code 3"):
        image = Built([BASE, CUDA, TORCH, code])
        assert image.write(archive) < len(code) + 20_000
        assert archive.stat().st_ino == file
        check(archive, image)


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param([b"another base", CUDA, TORCH, b"code"], id="base"),
        pytest.param([BASE, b"another cuda", TORCH, b"code"], id="middle"),
        pytest.param([BASE, TORCH, CUDA, b"code"], id="order"),
        pytest.param([BASE, TORCH, CUDA, b"other code"], id="order and code"),
        pytest.param([BASE, CUDA], id="fewer"),
        pytest.param([BASE, CUDA, TORCH, b"code", b"more" * 1000], id="more"),
        pytest.param([BASE, CUDA, TORCH, b"code"], id="same"),
    ],
)
def test_any_change_gives_the_new_image(archive: Path, layers: list[bytes]) -> None:
    Built([BASE, CUDA, TORCH, b"code"]).write(archive)
    Built(layers).write(archive)
    check(archive, Built(layers))


@pytest.mark.parametrize("damage", ["cut", "garbage", "other", "no image"])
def test_a_broken_archive_is_replaced(archive: Path, damage: str) -> None:
    image = Built([BASE, CUDA, b"code"])
    image.write(archive)
    match damage:
        case "cut":
            archive.write_bytes(archive.read_bytes()[:1_000_000])
        case "garbage":
            archive.write_bytes(b"\0" * 4096)
        case "other":
            archive.write_bytes(b"not a tar")
        case "no image":
            with tarfile.open(archive, "w") as tar:
                entry = tarfile.TarInfo("manifest.json")
                entry.size = 2
                tar.addfile(entry, io.BytesIO(b"[]"))
    image.write(archive)
    check(archive, image)


def test_a_failing_export_leaves_no_archive_that_looks_finished(archive: Path) -> None:
    Built([BASE, CUDA, b"code"]).write(archive)

    def fail(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(archive, NAME, save=fail, export=fail, scratch=archive.parent)
    assert not archive.exists()
    assert leading_layers(archive) == []
    image = Built([BASE, CUDA, b"code"])
    image.write(archive)
    check(archive, image)


def test_a_record_counts_only_for_the_archive_it_was_made_for(archive: Path) -> None:
    assert record.read(archive) is None
    archive.write_bytes(b"archive")
    record.write(archive, image="image", stack="stack")
    found = record.read(archive)
    assert found is not None
    assert (found.image, found.stack) == ("image", "stack")
    archive.write_bytes(b"replaced")
    assert record.read(archive) is None
    record.write(archive, image="image", stack="stack")
    record.forget(archive)
    assert record.read(archive) is None
