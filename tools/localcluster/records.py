"""What `up` decided, kept in one file: the addresses, ports, nodes and keys of a plane."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Node:
    """One node: its own bridge, containerd and kubelet."""

    name: str
    index: int

    @classmethod
    def number(cls, index: int) -> Node:
        """The node with this number, counted from 1."""
        return cls(f"node-{index}", index)

    @property
    def bridge(self) -> str:
        """The bridge device that carries the node's pods."""
        return f"ftlc-{self.index}"

    @property
    def address(self) -> str:
        """The node's address, on its bridge: pods and the host reach it, nobody else does."""
        return f"10.244.{self.index - 1}.1"

    @property
    def pods(self) -> str:
        """The addresses of the node's pods."""
        return f"10.244.{self.index - 1}.0/24"

    @property
    def cgroup(self) -> str:
        """The cgroup that holds all of the node's pods."""
        return f"ftlc-{self.index}"


@dataclass(frozen=True)
class Keys:
    """One S3 identity."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class S3:
    """An S3 server: how the host and the pods reach it, and who may do what."""

    endpoint: str
    """As seen from this machine."""
    pod_endpoint: str
    """As seen from pods."""
    region: str
    admin: Keys
    reader: Keys | None
    """May list and read, nothing else; None when the target offers no such identity."""


@dataclass
class Record:
    """The state of one plane."""

    address: str
    api_server: str
    ports: dict[str, int]
    nodes: list[Node] = field(default_factory=list)
    gpus: dict[str, int] = field(default_factory=dict)
    """Fake GPUs of each node; they are lost with the kubelet, and set again from here."""
    s3: S3 | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    """Kernel settings as they were before; `down` restores them."""
    absent: list[str] = field(default_factory=list)
    """Folders that programs make wherever they like and that were not there; `down` removes them."""
    complete: bool = False
    """Whether `up` came to its end: a plane that did not is taken down by the next `up`."""

    def save(self, path: Path) -> None:
        """Writes the record; a reader sees the old one or the new one."""
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(asdict(self), indent=2))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record, or None when no plane was ever started here.

        A plane that another version of this code has started is found too: what only that one knows is left out.
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
