"""What is said when the API server refuses: who, what, where, and what to do."""

import json

import pytest

from finetune_operator.cli.cluster.failures import Attempted, sentence, unreachable
from finetune_operator.kube.api import FINETUNEJOBS, PODS
from finetune_operator.kube.errors import from_response

pytestmark = pytest.mark.extras


def said(status: int, message: str, attempted: Attempted, there: tuple[str, ...] = ()) -> str:
    return sentence(from_response(status, {}, json.dumps({"message": message}).encode()), attempted, there)


GET = Attempted("get", FINETUNEJOBS, "team", "job")


@pytest.mark.parametrize(
    "text", [b"404 page not found\n", b'{"message": "the server could not find the requested resource"}']
)
def test_without_the_crd_it_says_how_to_install(text: bytes) -> None:
    error = from_response(404, {}, text)
    words = "this cluster has no finetunejobs.finetune.dev: name another --context, or install the chart: helm install"
    assert sentence(error, GET).startswith(words)
    assert sentence(error, Attempted("list", PODS, "team")) == "this cluster has no pods"


def test_a_missing_object_comes_with_its_neighbours() -> None:
    missing = "there is no FineTuneJob job in namespace team; "
    assert said(404, 'finetunejobs.finetune.dev "job" not found', GET) == f"{missing}-n names another namespace"
    assert said(404, "not found", GET, ("jobs", "other")) == f"{missing}there is jobs"
    many = tuple(f"x{number:02}" for number in range(12))
    assert said(404, "not found", GET, many).endswith("x08, x09, …")


def test_a_missing_right_names_the_user_the_verb_and_the_kind() -> None:
    text = 'pods "p" is forbidden: User "ann" cannot get resource "pods/log" in API group "" in the namespace "team"'
    log = Attempted("get", PODS, "team", "p", "log")
    assert (
        said(403, text, log) == "you (ann) may not get pods/log in namespace team: ask an administrator for that right"
    )


def test_refusals_of_quotas_and_policies_keep_the_servers_words() -> None:
    assert said(403, "exceeded quota: jobs", GET) == "the API server refuses it: exceeded quota: jobs"
    assert (
        said(422, "spec.lora.rank: \x1b[31mtoo big", GET)
        == "the API server refuses it: spec.lora.rank: \\x1b[31mtoo big"
    )
    conflict = 'Apply failed with 1 conflict: conflict with "kubectl-edit": .spec.suspend'
    assert "--force-conflicts" in said(409, conflict, GET)
    assert said(503, "etcd", GET) == "the API server cannot answer (HTTP 503): etcd; try again"
    assert "log in again" in said(401, "Unauthorized", GET)


def test_no_address_of_an_object_is_said() -> None:
    error = ConnectionError("HTTPSConnection(host='a') <urllib3.connection object at 0x7f00>: refused")
    assert unreachable(error, GET).endswith("HTTPSConnection(host='a') refused; try again")
