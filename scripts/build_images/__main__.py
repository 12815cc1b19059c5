"""The command: builds every image that is not up to date, one after the other."""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scripts.build_images import buildah, debian_base, docker, record
from scripts.build_images.catalog import ALL, FOR_TESTS, ROOT, SHIPPED, Image
from scripts.build_images.engine import Engine
from scripts.build_images.steps import BuildError, fail, step

_MEBIBYTE = 1 << 20


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Runs the command and returns its exit status."""
    options = _parser().parse_args(arguments)
    images = [image for image in ALL if image.name in options.images] if options.images else list(SHIPPED)
    if options.for_tests:
        images += [image for image in FOR_TESTS if image not in images]
    home = buildah.user_cache(environment) / "finetune-operator" / "images"
    try:
        with _alone(home):
            engine = _engine(home, environment)
            base = engine.base(options.base)
            options.output.mkdir(parents=True, exist_ok=True)
            for image in images:
                _make(engine, image, base=base, archive=options.output / f"{image.name}.tar")
    except BuildError as error:
        return fail(str(error))
    return 0


def _make(engine: Engine, image: Image, *, base: str, archive: Path) -> None:
    wanted, stack = image.digest(base), image.stack_digest(base)
    made = record.read(archive)
    if made is not None and made.image == wanted:
        print(f"{image.tag} is current: {archive}")
        return
    record.forget(archive)
    with step(f"building {image.tag} on {base}"):
        engine.build(image, base=base)
    with step(f"writing {archive}"):
        written = engine.export(image, archive)
    record.write(archive, image=wanted, stack=stack)
    print(f"{archive}: {archive.stat().st_size // _MEBIBYTE} MiB, {written // _MEBIBYTE} MiB of them written")
    if made is not None and made.stack != stack:
        with step("removing the layers of earlier builds"):
            engine.prune()


def _engine(home: Path, environment: Mapping[str, str]) -> Engine:
    if docker.available():
        return docker.Docker()
    if not buildah.available() or not debian_base.available():
        if buildah.can_install():
            buildah.install(environment)
        elif not buildah.available():
            raise BuildError(
                "neither a Docker daemon nor buildah is here: start Docker, or install buildah and mmdebstrap"
            )
    return buildah.Buildah(home, environment)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Holds a lock, because two builds at once would use the same storage and archives. The second build waits."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("waiting for another build to end"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/build-images",
        description="Builds the images into archives with Docker, or with buildah where no daemon answers "
        "(installed by apt when this is Debian and the user is root). What is current is left alone.",
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help=f"{', '.join(image.name for image in ALL)}; default: the first two",
    )
    parser.add_argument(
        "--for-tests",
        action="store_true",
        help="also those of the cluster tests: the scripted trainer and an S3 server",
    )
    parser.add_argument(
        "--base", help="base image; default: the Dockerfiles' own, or a Debian made here when it cannot be pulled"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build/images", help="folder; default: build/images")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
