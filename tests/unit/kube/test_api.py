"""Paths of the API server."""

from finetune_operator.kube.api import FINETUNEJOBS, PODS, TOKEN_REVIEWS


def test_paths() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("team", "a") == "/api/v1/namespaces/team/pods/a"
    assert (
        FINETUNEJOBS.path("team", "a", "status") == "/apis/finetune.dev/v1alpha1/namespaces/team/finetunejobs/a/status"
    )
    assert TOKEN_REVIEWS.path() == "/apis/authentication.k8s.io/v1/tokenreviews"
