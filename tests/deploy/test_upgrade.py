"""From the last chart to this one, and back, while a job has its pods: nothing is lost and nothing is started anew.

Each chart is served by the operator of its own commit, as in its image. One that is older than the CRD would leave
some jobs alone.
"""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import helm_python
import pytest

from deploy.process import PACKAGES, operator
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
    """The chart that users have, and its operator, in a folder like a checkout."""
    commit = last_commit()
    if not commit:
        pytest.skip("this checkout has no history: no earlier chart to upgrade from")
    command = ["git", "archive", commit, str(FOLDER), *PACKAGES]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    folder = tmp_path_factory.mktemp("last")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.fixture
def config(control_plane: Server) -> Iterator[Any]:
    with helm_python.Config(namespace=NAMESPACE, kubeconfig_path=control_plane.kubeconfig) as config:
        yield config


def test_a_job_goes_on_through_an_upgrade_and_a_rollback(
    control_plane: Server, config: Any, last: Path, tmp_path: Path
) -> None:
    config.install(last / FOLDER, RELEASE, create_namespace=True)
    control_plane.wait_established()
    control_plane.apply(job())
    deployment = control_plane.get(*DEPLOYMENT)

    def serve(name: str, code: Path) -> None:
        """The operator as the Deployment is now starts it, until it has seen the job and has begun one of its own."""
        control_plane.apply(job(name=name))
        with operator(control_plane, control_plane.get(*DEPLOYMENT), tmp_path / name, code=code) as (*_, log):
            for child in ("support-bot", name):
                wait_for("the preflight", partial(control_plane.has, f"job/{child}-preflight-1"), timeout=SECONDS)
            wait_for("the leader", lambda: '"leading"' in log.read_text(), timeout=SECONDS)
            wait_for("the status", lambda: control_plane.get("ftj/support-bot").get("status"), timeout=SECONDS)

    serve("before", last)
    child, uid = (
        control_plane.get("job/support-bot-preflight-1"),
        control_plane.get("ftj/support-bot")["metadata"]["uid"],
    )

    config.upgrade(CHART, RELEASE)
    control_plane.wait_established()
    serve("after", ROOT)
    unchanged(control_plane, child, uid)
    assert control_plane.get(*DEPLOYMENT)["metadata"]["uid"] == deployment["metadata"]["uid"], "not made anew"

    config.rollback(RELEASE, version=1)
    serve("back", last)
    unchanged(control_plane, child, uid)


def unchanged(server: Server, child: dict[str, Any], uid: str) -> None:
    """The job is the same one, and has the one child that it had."""
    assert server.get("ftj/support-bot")["metadata"]["uid"] == uid
    [only] = [item for item in server.get("jobs")["items"] if item["metadata"]["name"].startswith("support-bot")]
    assert (only["metadata"]["uid"], only["spec"]) == (child["metadata"]["uid"], child["spec"])
