"""What an archive was made of, kept beside it, so that an archive that is current is not made again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How an archive was made.

    Attributes:
        image: digest of all that went into the image.
        stack: digest of what its large layers are made of.
        size, modified: the archive's bytes and time (nanoseconds), so that a replaced archive is noticed.
    """

    image: str
    stack: str
    size: int
    modified: int


def path_of(archive: Path) -> Path:
    """The record's place."""
    return archive.with_suffix(".json")


def read(archive: Path) -> Record | None:
    """The record of an archive that is still the one recorded, else None."""
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
    """Removes the record before the archive changes: an interrupted build is never taken for a finished one."""
    path_of(archive).unlink(missing_ok=True)
