"""A hook of mkdocs: links from a page to files outside of docs/ lead to the repository.

On a code host these links work as they are. On the site they need the repository's address, which is known when the
site is published: `REPOSITORY_URL`. Without it such a link leads to the file's path below `/repository/`.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\((?P<path>\.\./[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, /, *, page: Any, **_: Any) -> str:
    """The page with its links to the repository.

    Raises:
        PluginError: a link leads to a file that does not exist.
    """
    folder = PurePosixPath("docs", page.file.src_uri).parent

    def lead(match: "re.Match[str]") -> str:
        target = os.path.normpath(folder / match["path"])
        if target.startswith("docs/"):
            return match[0]
        if target.startswith("..") or not (ROOT / target).exists():
            raise PluginError(f"{page.file.src_uri}: {match['path']} does not exist")
        return f"]({repository_url(target)}{match['anchor'] or ''})"

    return _LINK.sub(lead, markdown)


def repository_url(path: str) -> str:
    """The address of a file in the repository."""
    base = os.environ.get("REPOSITORY_URL", "").rstrip("/")
    return f"{base}/blob/main/{path}" if base else f"https://example.invalid/repository/{path}"
