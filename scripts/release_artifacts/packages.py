"""The Python packages of an image: a CycloneDX bill of materials, and the text of their licences."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

_SEPARATOR = "=" * 80
_TRACKERS = sorted((Path(__file__).parents[2] / ".venv-trackers/lib").glob("python*/site-packages"))
"""Where `scripts/venv trackers` puts the packages of the trackers."""


def pinned(requirements: str) -> list[tuple[str, str, list[str]]]:
    """Returns name, version and SHA-256 sums of every package of a locked requirements file for Linux."""
    joined = requirements.replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", line)
        if match and not re.search(r"sys_platform == '(?:win32|darwin)'", line):
            found.append((match[1].lower(), match[2], re.findall(r"sha256:([0-9a-f]{64})", line)))
    # The environments of an image may have a package in common.
    return sorted({(name, version): (name, version, digests) for name, version, digests in found}.values())


def cyclonedx(image: str, version: str, requirements: str, *, modified: int) -> bytes:
    """Returns the bill of materials of an image's Python packages, in CycloneDX 1.6.

    https://cyclonedx.org/docs/1.6/json/
    """
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{number}",
            "name": name,
            "version": number,
            "purl": f"pkg:pypi/{name}@{number}",
            **_licences(name),
            # A package has several files, and an image one of them. So the sums are those of what may be downloaded.
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/project/{name}/{number}/",
                    "hashes": [{"alg": "SHA-256", "content": digest} for digest in digests],
                }
            ],
        }
        for name, number, digests in pinned(requirements)
    ]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([image, version, components]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(modified, UTC).isoformat().replace("+00:00", "Z"),
            "component": {"type": "container", "bom-ref": image, "name": image, "version": version},
        },
        "components": components,
        "dependencies": [{"ref": image, "dependsOn": [item["bom-ref"] for item in components]}],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def notices(image: str, requirements: str) -> bytes:
    """Returns the licences of an image's Python packages, with their texts. CUDA's are among those of the trainer."""
    head = f"Python packages in the image {image}, and their licences.\n"
    parts = [head + "The licences of Debian's packages are in the image: /usr/share/doc/*/copyright\n"]
    for name, version, _ in pinned(requirements):
        parts.append(f"{_SEPARATOR}\n{name} {version}\nLicence: {_licence(name) or 'see its own page'}\n")
        parts.extend(f"\n{text.strip()}\n" for text in _texts(name))
    return "\n".join(parts).encode()


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return next(iter(distributions(name=name, path=[str(path) for path in _TRACKERS])), None)


def _licence(name: str) -> str:
    """The licence as the installed package states it. Empty when it does not."""
    found = _installed(name)
    if found is None:
        return ""
    metadata: Message = found.metadata  # type: ignore[assignment] # it is one
    classified = [
        item.rpartition(" :: ")[2] for item in metadata.get_all("Classifier") or () if item.startswith("License ::")
    ]
    stated = metadata.get("License-Expression") or ", ".join(classified) or metadata.get("License") or ""
    return stated.strip().partition("\n")[0][:200]


def _licences(name: str) -> dict[str, object]:
    stated = _licence(name)
    return {"licenses": [{"license": {"name": stated}}]} if stated else {}


def _texts(name: str) -> Iterator[str]:
    found = _installed(name)
    for file in sorted((found.files or []) if found else [], key=str):
        if ".dist-info" in str(file) and re.match(r"(licen[cs]e|copying|notice|copyright)", file.name, re.IGNORECASE):
            yield Path(file.locate()).read_text(encoding="utf-8", errors="replace")
