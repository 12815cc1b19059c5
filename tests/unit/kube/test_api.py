"""Paths of the API server."""

import pytest

from finetune_operator.kube.api import FINETUNEJOBS, PODS, TOKEN_REVIEWS


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("team", "a") == "/api/v1/namespaces/team/pods/a"
    assert (
        FINETUNEJOBS.path("team", "a", "status") == "/apis/finetune.dev/v1alpha1/namespaces/team/finetunejobs/a/status"
    )
    assert TOKEN_REVIEWS.path() == "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../victim/finetunejobs/job", "..%2F..", "%2e%2e", "a%2Fb"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a Kubernetes object"):
        PODS.path("team", name)
    with pytest.raises(ValueError, match="not the name of a Kubernetes object"):
        PODS.path(name, "a")


@pytest.mark.parametrize(("name", "segment"), [("a?watch=1", "a%3Fwatch%3D1"), ("a#b", "a%23b"), ("a;b", "a%3Bb")])
def test_a_name_stays_one_segment(name: str, segment: str) -> None:
    assert PODS.path("team", name) == f"/api/v1/namespaces/team/pods/{segment}"
