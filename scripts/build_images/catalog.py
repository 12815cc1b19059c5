"""The images: their names, Dockerfiles and source files."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_VERSION_FILE = ROOT / "trainer/finetune_trainer/contract/version.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image.

    Attributes:
        name: name without registry and tag. The archive's file has the same name.
        dockerfile: path relative to the root of the repository, like all paths here.
        stack: files that determine the third-party layers, besides the Dockerfile.
        code: files and folders of the last layer.
    """

    name: str
    dockerfile: str
    stack: tuple[str, ...]
    code: tuple[str, ...]

    @property
    def requirements(self) -> tuple[str, ...]:
        """The locked packages that the image holds. uv is a tool of the build."""
        return tuple(path for path in self.stack if path.startswith("requirements/") and not path.endswith("/uv.txt"))

    @property
    def tag(self) -> str:
        """Full name with this version, without a registry."""
        return f"localhost/{self.name}:{version()}"

    def stack_digest(self, base: str) -> str:
        """Returns a hash of everything that determines the large layers. `base` is the name of the base image."""
        return _digest([self.dockerfile, ".dockerignore", *self.stack], seed=base)

    def digest(self, base: str) -> str:
        """Returns a hash of everything that determines the image."""
        return _digest(self.code, seed=self.stack_digest(base) + version())


_CODE = ("pyproject.toml", "README.md", "LICENSE", "operator/finetune_operator", "trainer/finetune_trainer")
_BUILD = ("requirements/uv.txt", "images/build-backend.txt")

OPERATOR = Image(
    name="finetune-operator",
    dockerfile="images/operator/Dockerfile",
    stack=("requirements/operator.txt", *_BUILD),
    code=_CODE,
)
TRAINER = Image(
    name="finetune-trainer",
    dockerfile="images/trainer/Dockerfile",
    stack=("requirements/trainer.txt", "requirements/trackers.txt", *_BUILD),
    code=_CODE,
)
SCRIPTED = Image(
    name="finetune-scripted-trainer",
    dockerfile="tests/scripted/Dockerfile",
    stack=("requirements/operator.txt", "requirements/uv.txt"),
    code=("trainer/finetune_trainer/__init__.py", "trainer/finetune_trainer/contract", "tests/scripted"),
)
S3 = Image(
    name="finetune-test-s3",
    dockerfile="tests/s3/Dockerfile",
    stack=("requirements/dev.txt", "requirements/uv.txt"),
    code=(),
)
SHIPPED = (OPERATOR, TRAINER)
FOR_TESTS = (SCRIPTED, S3)
ALL = (*SHIPPED, *FOR_TESTS)


def version() -> str:
    """Returns the project's version, without importing the package."""
    found = re.search(r'^__version__ = "([^"]+)"$', _VERSION_FILE.read_text(), re.MULTILINE)
    assert found, f"{_VERSION_FILE} has no __version__"
    return found[1]


def _digest(paths: tuple[str, ...] | list[str], *, seed: str) -> str:
    total = hashlib.sha256(seed.encode())
    for given in paths:
        for path in _files(ROOT / given):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"\n{path.relative_to(ROOT)} {path.stat().st_mode & 0o777:o} {content}".encode())
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """Returns the file, or all files in the folder in a fixed order, without bytecode."""
    if path.is_file():
        yield path
    else:
        yield from (child for child in sorted(path.rglob("*")) if child.is_file() and "__pycache__" not in child.parts)
