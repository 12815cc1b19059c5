"""Layers are found under the names and in the folders that containerd prints."""

import io
import json
import tarfile
from dataclasses import dataclass, field

from localcluster.image_sharing import Image, _archive, _layers, _upper, chain_ids, is_proper

SNAPSHOTS = "/state/node-1/images/io.containerd.snapshotter.v1.overlayfs/snapshots"


@dataclass
class Client:
    """containerd's client, as it answers `view` for one image."""

    mount: str
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def ctr(self, *arguments: str) -> str:
        self.asked.append(arguments)
        return f"{self.mount}\n" if arguments[1] == "view" else ""


def test_a_layer_is_named_by_all_below_it() -> None:
    """As containerd named the three layers of an image."""
    diff_ids = [
        "sha256:5ec00b030f6f3a22e9994baca32c3f244bacf79346b64cc96aef5079123b517a",
        "sha256:014afab09e4948c5ad48178fbaf2086d81c858a66abaf591fd3e4e28d9373e5d",
        "sha256:c37776b3378fcfe728c26c26e17a0777d466184d1a4f821f6d261ba440442952",
    ]
    assert chain_ids(diff_ids) == [
        diff_ids[0],
        "sha256:f63d2022ad68372afd74ff36cc117d71b7c42432d047595260c99775a77fed91",
        "sha256:63654b391e7919341f60bacc448386a4c1e03ab5d342a51644767618069a5762",
    ]


def test_folders_of_layers_come_lowest_first() -> None:
    lower = ":".join(f"{SNAPSHOTS}/{number}/fs" for number in (3, 2, 1))
    client = Client(f"mount -t overlay overlay / -o index=off,lowerdir={lower}")
    assert _layers(client, "sha256:aa") == [f"{SNAPSHOTS}/{number}/fs" for number in (1, 2, 3)]
    assert client.asked[-1] == ("snapshots", "rm", "look-sha256:aa")
    alone = Client(f"mount -t bind {SNAPSHOTS}/1/fs / -o ro,rbind")
    assert _layers(alone, "sha256:aa") == [f"{SNAPSHOTS}/1/fs"]


def test_files_go_into_the_prepared_layer() -> None:
    options = f"index=off,workdir={SNAPSHOTS}/2/work,upperdir={SNAPSHOTS}/2/fs,lowerdir={SNAPSHOTS}/1/fs"
    assert _upper(f"mount -t overlay overlay / -o {options}\n") == f"{SNAPSHOTS}/2/fs"
    assert _upper(f"mount -t bind {SNAPSHOTS}/1/fs / -o rw,rbind\n") == f"{SNAPSHOTS}/1/fs"


def test_the_archive_names_the_image_and_has_no_layer() -> None:
    image = Image("localhost/a:1", "application/vnd.oci.image.manifest.v1+json", "sha256:aa")
    content = _archive(image, {"sha256:aa": b"manifest", "sha256:bb": b"config"})
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}
    [descriptor] = json.loads(files["index.json"])["manifests"]
    assert (descriptor["digest"], descriptor["size"]) == ("sha256:aa", len(b"manifest"))
    assert "localhost/a:1" in descriptor["annotations"].values()
    assert {name for name in files if name.startswith("blobs/")} == {"blobs/sha256/aa", "blobs/sha256/bb"}


def test_digests_and_ids_are_no_proper_names() -> None:
    names = ["localhost/a:1", "localhost/a@sha256:aa", "sha256:aa"]
    assert list(filter(is_proper, names)) == ["localhost/a:1"]
