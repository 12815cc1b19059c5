"""The record of a plane in one file: its addresses, ports, nodes and keys."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Node:
    """One node, with its own bridge, containerd and kubelet."""

    name: str
    index: int

    @classmethod
    def number(cls, index: int) -> Node:
        """Returns the node with this number, counted from 1."""
        return cls(f"node-{index}", index)

    @property
    def bridge(self) -> str:
        """The bridge device of the node's pods."""
        return f"ftlc-{self.index}"

    @property
    def address(self) -> str:
        """The node's address, on its bridge. Only pods and the host reach it."""
        return f"10.244.{self.index - 1}.1"

    @property
    def pods(self) -> str:
        """The subnet of the node's pods."""
        return f"10.244.{self.index - 1}.0/24"

    @property
    def cgroup(self) -> str:
        """The cgroup of all pods of the node."""
        return f"ftlc-{self.index}"


@dataclass(frozen=True)
class Keys:
    """The access keys of one S3 identity."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class S3:
    """An S3 server: its endpoints and identities."""

    endpoint: str
    """As seen from this machine."""
    pod_endpoint: str
    """As seen from pods."""
    region: str
    admin: Keys
    reader: Keys | None
    """The identity that may only list and read; None when the target has none."""


@dataclass
class Record:
    """The state of one plane."""

    address: str
    api_server: str
    ports: dict[str, int]
    nodes: list[Node] = field(default_factory=list)
    gpus: dict[str, int] = field(default_factory=dict)
    """Fake GPUs of each node. A node loses them with its kubelet, and gets them again from this record."""
    s3: S3 | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    """The earlier values of kernel settings, which `down` restores."""
    absent: list[str] = field(default_factory=list)
    """Folders outside the plane's that did not exist before, which `down` removes."""
    complete: bool = False
    """True when `up` has succeeded. The next `up` takes an incomplete plane down first."""

    def save(self, path: Path) -> None:
        """Writes the record. A reader sees the old or the new one, never a part."""
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self), indent=2))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """Returns the record, or None when no plane was ever started here.

        A record of another version of this code is read too: unknown fields are left out.
        """
        try:
            written: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        known = {each.name for each in dataclasses.fields(cls)}
        fields = {name: value for name, value in written.items() if name in known}
        fields["nodes"] = [Node(**node) for node in fields["nodes"]]
        if s3 := fields["s3"]:
            keys = {name: Keys(**s3[name]) if s3[name] else None for name in ("admin", "reader")}
            fields["s3"] = S3(**{**s3, **keys})
        return cls(**fields)
