"""A job from end to end where the platform chooses the user of every pod, as OpenShift does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.lab import Lab
from cluster.restricted_v2 import USER, restricted_v2
from demo import installation
from demo.artefact import download, verified_manifest


@pytest.fixture
def on_openshift(lab: Lab) -> Iterator[Lab]:
    """The operator as `manifests/openshift` installs it, and its namespace and the job's under restricted-v2."""
    try:
        with restricted_v2(lab.target, lab.namespace, installation.NAMESPACE):
            installation.install(lab.target, "openshift")
            yield lab
    finally:
        installation.install(lab.target)  # not under restricted-v2, which would refuse its pods


def test_preflight_and_training_run_as_the_user_of_the_platform(on_openshift: Lab, tmp_path: Path) -> None:
    lab = on_openshift
    lab.apply("tiny", training={"maxSteps": 2, "batchSize": 4}, checkpoint={"everySteps": 1})
    status = lab.until_finished("tiny", seconds=240)
    assert status["phase"] == "Succeeded", lab.picture()
    assert verified_manifest(download(lab.target, status, tmp_path), status)["adapter"]
    pods = [*lab.pods("tiny"), *installation.operator_pods(lab.target)]
    assert len(pods) == 3
    for pod in pods:
        security = pod["spec"]["securityContext"]
        assert (security["runAsUser"], security["fsGroup"]) == (USER, USER)
        assert "runAsGroup" not in security, "the container's group is 0 then"
