"""The state file is written and read whole."""

import json
from pathlib import Path

from localcluster.records import S3, Keys, Node, Record


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    record = Record(
        "10.244.0.1",
        "https://10.244.0.1:6443",
        {"api": 6443},
        nodes=[Node.number(1), Node.number(2)],
        gpus={"node-1": 2},
        s3=S3("http://a", "http://b", "us-east-1", Keys("k", "s"), Keys("r", "t")),
        sysctls={"net/ipv4/ip_forward": "0"},
        complete=True,
    )
    path = tmp_path / "cluster.json"
    record.save(path)
    assert Record.load(path) == record
    assert path.stat().st_mode & 0o077 == 0


def test_a_record_of_another_version_is_read(tmp_path: Path) -> None:
    record = Record("10.244.0.1", "https://10.244.0.1:6443", {}, nodes=[Node.number(1)])
    path = tmp_path / "cluster.json"
    record.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "archives": []}))
    assert Record.load(path) == record


def test_no_file_is_no_record(tmp_path: Path) -> None:
    assert Record.load(tmp_path / "cluster.json") is None


def test_nodes_do_not_share_addresses() -> None:
    first, second = Node.number(1), Node.number(2)
    assert (first.name, first.address, first.pods, first.bridge) == ("node-1", "10.244.0.1", "10.244.0.0/24", "ftlc-1")
    assert (second.name, second.address, second.pods) == ("node-2", "10.244.1.1", "10.244.1.0/24")
    assert {first.bridge, first.cgroup} & {second.bridge, second.cgroup} == set()
