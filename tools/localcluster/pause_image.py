"""Builds the pause image, which holds a pod's namespaces open, because there is no registry to pull it from.

It is a static C program in a small archive. The program waits, reaps orphans in a shared process namespace, and ends at
SIGTERM.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

from localcluster.commands import run
from localcluster.home import cache_root
from localcluster.machine import program

NAME = "localhost/finetune-localcluster/pause:1"

_SOURCE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal_number) { (void)signal_number; _exit(0); }
static void reap(int signal_number) {
    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0) { }
}

int main(void) {
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def archive() -> Path:
    """Returns the image as a docker archive in the cache."""
    name = hashlib.sha256(_SOURCE.encode()).hexdigest()[:16]
    path = cache_root() / f"pause-{name}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(docker_archive(NAME, {"pause": _compile()}, entrypoint="/pause"))
    fresh.replace(path)
    return path


def docker_archive(name: str, files: dict[str, bytes], *, entrypoint: str) -> bytes:
    """Returns an image of one layer with these programs, in the format of `docker save`."""
    layer = tar_archive(files, mode=0o755)
    config = {
        "architecture": _ARCHITECTURE.get(run(["uname", "-m"]).strip(), "amd64"),
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "finetune-localcluster"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return tar_archive(
        {
            "config.json": json.dumps(config).encode(),
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        },
        mode=0o644,
    )


_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def _compile() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "pause.c"), Path(folder, "pause")
        source.write_text(_SOURCE)
        run([program("gcc"), "-Os", "-s", "-static", "-o", str(binary), str(source)])
        return binary.read_bytes()


def tar_archive(files: dict[str, bytes], *, mode: int) -> bytes:
    """Returns a tar archive of files, all with the same mode."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive_:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive_.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
