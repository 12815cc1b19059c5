"""The record beside an archive. It says what the archive was made of, so that nothing is built twice."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an archive was made of.

    Attributes:
        image: digest of everything that determines the image.
        stack: digest of everything that determines its large layers.
        size: size of the archive in bytes.
        modified: the archive's time of change in nanoseconds. Size and time show that an archive was replaced.
    """

    image: str
    stack: str
    size: int
    modified: int


def path_of(archive: Path) -> Path:
    """Returns the path of an archive's record."""
    return archive.with_suffix(".json")


def read(archive: Path) -> Record | None:
    """Returns the record of an archive, or None when the archive is missing or has changed since."""
    try:
        record = Record(**json.loads(path_of(archive).read_text()))
        state = archive.stat()
    except (OSError, ValueError, TypeError):
        return None
    return record if (state.st_size, state.st_mtime_ns) == (record.size, record.modified) else None


def write(archive: Path, *, image: str, stack: str) -> None:
    """Records a finished archive."""
    state = archive.stat()
    record = Record(image=image, stack=stack, size=state.st_size, modified=state.st_mtime_ns)
    path_of(archive).write_text(json.dumps(asdict(record), indent=2) + "\n")


def forget(archive: Path) -> None:
    """Removes the record. Called before the archive changes, so that an interrupted build does not look finished."""
    path_of(archive).unlink(missing_ok=True)
