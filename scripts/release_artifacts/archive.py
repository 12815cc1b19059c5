"""Archives whose bytes depend on their files alone."""

import gzip
import io
import tarfile
from collections.abc import Mapping


def tgz(files: Mapping[str, bytes], *, modified: int) -> bytes:
    """Returns a .tar.gz: entries by name, no owner, one time of change (seconds since 1970)."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=modified) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(files[name]), modified, 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()
