"""Which cluster a test runs on, and what it says when there is none."""

from pathlib import Path

import pytest

from localcluster import cluster, target
from localcluster.errors import ClusterError, UnsupportedError
from localcluster.target import Target


@pytest.fixture(autouse=True)
def no_local_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find", lambda: None)
    monkeypatch.setattr(target, "_kubectl", lambda: "/bin/kubectl")


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text("{}")
    return str(path)


def test_nothing_to_run_on() -> None:
    with pytest.raises(ClusterError, match=r"make cluster.*KUBECONFIG"):
        Target.current({})


def test_a_kubeconfig_that_is_not_there() -> None:
    with pytest.raises(ClusterError, match="no such file"):
        Target.current({"KUBECONFIG": "/does/not/exist"})


def test_another_cluster_with_its_registry_and_s3(kubeconfig: str) -> None:
    found = Target.current(
        {
            "KUBECONFIG": kubeconfig,
            "IMAGE_PREFIX": "registry.example/team/",
            "S3_ENDPOINT": "https://s3.example",
            "S3_ACCESS_KEY": "a",
            "S3_SECRET_KEY": "b",
        }
    )
    assert found.local is None
    assert found.image("finetune-operator:1") == "registry.example/team/finetune-operator:1"
    assert (found.s3.endpoint, found.s3.pod_endpoint) == ("https://s3.example", "https://s3.example")
    assert found.s3.reader is None
    assert found.publish_s3("default") == "https://s3.example"
    assert found.load_image(Path("/does/not/matter.tar")) == []
    with found.with_s3("finetune-test-s3:1") as same:
        assert same is found


def test_another_cluster_without_s3_says_so(kubeconfig: str) -> None:
    found = Target.current({"KUBECONFIG": kubeconfig})
    with pytest.raises(ClusterError, match="S3_ENDPOINT"):
        _ = found.s3


def test_half_of_the_keys(kubeconfig: str) -> None:
    with pytest.raises(ClusterError, match="S3_SECRET_KEY"):
        Target.current({"KUBECONFIG": kubeconfig, "S3_ENDPOINT": "http://s3", "S3_ACCESS_KEY": "a"})


def test_a_lever_of_the_machine_on_another_cluster(kubeconfig: str) -> None:
    with pytest.raises(UnsupportedError, match="local cluster"):
        Target.current({"KUBECONFIG": kubeconfig}).require_local()
