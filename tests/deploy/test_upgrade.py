"""From the last chart to this one, and back, while a job has its pods: nothing is lost and nothing is started anew."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import helm_python
import pytest

from deploy.process import operator
from deploy.rendering import CHART, NAMESPACE, RELEASE, ROOT
from deploy.server import Server, job
from localcluster.waiting import wait_for

pytestmark = pytest.mark.cluster

FOLDER = CHART.relative_to(ROOT)
DEPLOYMENT = ("deployment/finetune-operator", f"--namespace={NAMESPACE}")
SECONDS = 60


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def last_commit() -> str:
    """The newest release, or, while there is none, the chart before its newest change. Empty without any history."""
    try:
        tags = git("tag", "--list", "v*", "--merged", "HEAD", "--sort=-version:refname").split()
        changed = git("log", "-1", "--format=%H", "--", str(FOLDER))
        return tags[0] if tags else git("rev-parse", f"{changed}~1")
    except (OSError, subprocess.CalledProcessError):
        return ""


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart that users have."""
    commit = last_commit()
    if not commit:
        pytest.skip("this checkout has no history: no earlier chart to upgrade from")
    archive = subprocess.run(["git", "archive", commit, str(FOLDER)], cwd=ROOT, capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("last")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder / FOLDER


@pytest.fixture
def config(control_plane: Server) -> Iterator[Any]:
    with helm_python.Config(namespace=NAMESPACE, kubeconfig_path=control_plane.kubeconfig) as config:
        yield config


def test_a_job_goes_on_through_an_upgrade_and_a_rollback(
    control_plane: Server, config: Any, last: Path, tmp_path: Path
) -> None:
    config.install(last, RELEASE, create_namespace=True)
    control_plane.wait_established()
    control_plane.apply(job())
    deployment = control_plane.get(*DEPLOYMENT)

    def serve(name: str) -> None:
        """The operator as the Deployment is now starts it, until the job has been seen by it."""
        with operator(control_plane, control_plane.get(*DEPLOYMENT), tmp_path / name) as (*_, log):
            wait_for("the preflight", partial(control_plane.has, "job/support-bot-preflight-1"), timeout=SECONDS)
            wait_for("the leader", lambda: '"leading"' in log.read_text(), timeout=SECONDS)
            wait_for("the status", lambda: control_plane.get("ftj/support-bot").get("status"), timeout=SECONDS)

    serve("before")
    child, uid = (
        control_plane.get("job/support-bot-preflight-1"),
        control_plane.get("ftj/support-bot")["metadata"]["uid"],
    )

    config.upgrade(CHART, RELEASE)
    control_plane.wait_established()
    serve("after")
    unchanged(control_plane, child, uid)
    assert control_plane.get(*DEPLOYMENT)["metadata"]["uid"] == deployment["metadata"]["uid"], "not made anew"

    config.rollback(RELEASE, version=1)
    serve("back")
    unchanged(control_plane, child, uid)


def unchanged(server: Server, child: dict[str, Any], uid: str) -> None:
    """The job is the same one, and has the one child that it had."""
    assert server.get("ftj/support-bot")["metadata"]["uid"] == uid
    [only] = server.get("jobs")["items"]
    assert (only["metadata"]["uid"], only["spec"]) == (child["metadata"]["uid"], child["spec"])
