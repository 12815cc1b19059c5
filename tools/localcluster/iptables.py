"""Removes the iptables chains of kube-proxy, the kubelet and the pod network.

None of these programs removes all its chains itself. For each table, one transaction removes first the rules that jump
into a chain, then the chains' own rules, then the chains.

All `KUBE-*` chains are removed, because `up` refuses to start beside another node. `CNI-*` chains may belong to another
container engine: those whose rules name another network stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from localcluster.commands import run, try_run
from localcluster.errors import ClusterError

_FAMILIES = ("iptables", "ip6tables")
_NETWORK = re.compile(r'name: \\"([^\\"]+)\\"')
_JUMP = re.compile(r"(?:-j|-g) (\S+)")


@dataclass
class Table:
    """One table of the output of `iptables-save`."""

    name: str
    chains: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    """The rules without the leading `-A`: each is a chain's name and the rule."""


def parse(saved: str) -> list[Table]:
    """Parses the output of `iptables-save`."""
    tables: list[Table] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            tables.append(Table(line[1:]))
        elif line.startswith(":"):
            tables[-1].chains.append(line[1:].split()[0])
        elif line.startswith("-A "):
            tables[-1].rules.append(line[3:])
    return tables


def ours(table: Table, networks: Iterable[str]) -> list[str]:
    """Returns the chains of a table that a node of this plane created."""
    wanted = set(networks)
    foreign = {
        name
        for rule in table.rules
        if (network := _NETWORK.search(rule)) and network[1] not in wanted
        for name in (rule.split()[0], *_JUMP.findall(rule))
        if name.startswith("CNI-")
    }
    return [chain for chain in table.chains if chain.startswith(("KUBE-", "CNI-")) and chain not in foreign]


def removal(table: Table, chains: list[str]) -> str:
    """Returns the `iptables-restore --noflush` script that removes the chains."""
    gone = set(chains)
    lines = [f"*{table.name}"]
    for rule in table.rules:
        chain = rule.split()[0]
        if chain not in gone and gone & set(_JUMP.findall(rule)):
            lines.append(f"-D {rule}")
    lines += [f"-F {chain}" for chain in chains]
    lines += [f"-X {chain}" for chain in chains]
    return "\n".join([*lines, "COMMIT", ""])


def leftovers(networks: Iterable[str]) -> list[str]:
    """Returns the chains of this plane that exist, as FAMILY/TABLE/CHAIN."""
    names = list(networks)
    return [
        f"{family}/{table.name}/{chain}"
        for family in _FAMILIES
        for table in _tables(family)
        for chain in ours(table, names)
    ]


def clean(networks: Iterable[str]) -> None:
    """Removes every chain of this plane."""
    names = list(networks)
    for family in _FAMILIES:
        for table in _tables(family):
            if chains := ours(table, names):
                script = removal(table, chains)
                try:
                    run([f"{family}-restore", "--noflush", "--wait", "5"], stdin=script)
                except ClusterError as error:
                    raise ClusterError(f"{error}\nscript:\n{script}") from error


def _tables(family: str) -> list[Table]:
    return parse(try_run([f"{family}-save"]) or "")
