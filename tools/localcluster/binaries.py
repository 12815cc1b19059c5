"""Builds Kubernetes, etcd and CoreDNS from pinned Go modules, once for each pin.

The two modules under `gomod/` pin exact versions and checksums. The programs go into the user's cache, in a folder
whose name is a hash of these files. Another pin has another folder, so a cached program is never out of date.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import run, try_run
from localcluster.errors import ClusterError
from localcluster.home import cache_root
from localcluster.locking import locked
from localcluster.progress import Step, step

_MODULES = Path(__file__).parent / "gomod"
_GO = (1, 26)
_KUBERNETES = "v1.36.3"
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """A pinned Go module and the programs that are built from it."""

    name: str
    programs: dict[str, str]
    """Maps each program to the Go package of its main function."""
    linker: str = "-s -w"

    @property
    def source(self) -> Path:
        """The folder with go.mod and go.sum."""
        return _MODULES / self.name

    @property
    def folder(self) -> Path:
        """The folder of the built programs."""
        pins = b"".join((self.source / name).read_bytes() for name in ("go.mod", "go.sum"))
        return cache_root() / f"{self.name}-{hashlib.sha256(pins).hexdigest()[:16]}"

    def is_built(self) -> bool:
        """Returns True when every program is in the cache."""
        return all((self.folder / program).exists() for program in self.programs)

    def program(self, name: str) -> str:
        """Returns the path of a built program."""
        return str(self.folder / name)


KUBERNETES = Module(
    "kubernetes",
    {
        **{
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
                "kubectl",
            )
        },
        "etcd": "go.etcd.io/etcd/server/v3",
    },
    # Without these flags the programs report version v0.0.0, and clients refuse the server.
    linker=(
        f"-s -w -X {_VERSION}.gitVersion={_KUBERNETES}"
        f" -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor={_KUBERNETES.split('.')[1]}"
    ),
)
COREDNS = Module("coredns", {"coredns": "github.com/coredns/coredns"})


def build(*modules: Module) -> None:
    """Builds the programs that are not in the cache. The first time takes minutes.

    Raises:
        ClusterError: Go is missing or too old, or a build fails.
    """
    for module in modules:
        if not module.is_built():
            with locked(module.folder.with_suffix(".lock"), f"building {module.name}"):
                if not module.is_built():
                    _require_go(module)
                    _build(module)


def _build(module: Module) -> None:
    partial = module.folder.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    title = f"building {', '.join(module.programs)} (once; cached in {module.folder.parent})"
    with step(title) as running:
        total = len(_go(module, "list", "-deps", *module.programs.values()).split())
        compiled = 0
        for program, package in module.programs.items():
            running.note(f"{program}, {compiled} of at most {total} packages compiled")
            compiled = _compile(module, program, package, partial, running, compiled, total)
        shutil.rmtree(module.folder, ignore_errors=True)
        partial.rename(module.folder)


def _compile(module: Module, program: str, package: str, into: Path, running: Step, before: int, total: int) -> int:
    """Compiles one program. Returns the number of packages compiled so far."""
    argv = ["go", "build", "-v", "-trimpath", "-ldflags", module.linker]
    argv += ["-o", str(into / program), package]
    last: deque[str] = deque(maxlen=15)
    compiled = before
    with subprocess.Popen(argv, cwd=module.source, env=_environment(), stderr=subprocess.PIPE, text=True) as compiler:
        assert compiler.stderr is not None
        for line in compiler.stderr:
            last.append(line)
            # -v names each package that is compiled, but not those from the build cache.
            compiled += not line.startswith(("#", "go: "))
            running.note(f"{program}, {compiled} of at most {total} packages compiled")
    if compiler.returncode != 0:
        raise ClusterError(f"{' '.join(argv[:2])} of {package} failed: {''.join(last)}")
    return compiled


def _require_go(module: Module) -> None:
    wanted = ".".join(map(str, _GO))
    remedy = "install it, or set KUBECONFIG to a cluster that exists"
    if shutil.which("go") is None:
        raise ClusterError(f"the first start builds Kubernetes with Go {wanted} or newer: {remedy}")
    # Inside the module, because Go then downloads the release that go.mod names.
    words = (try_run(["go", "-C", str(module.source), "env", "GOVERSION"]) or "").strip()
    version = re.match(r"go(\d+)\.(\d+)", words)
    if version is None or (int(version[1]), int(version[2])) < _GO:
        found = words or "an older one"
        raise ClusterError(f"the first start builds Kubernetes with Go {wanted} or newer, not {found}: {remedy}")


def _go(module: Module, *arguments: str) -> str:
    return run(["go", "-C", str(module.source), *arguments], env=_environment(), timeout=900)


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
