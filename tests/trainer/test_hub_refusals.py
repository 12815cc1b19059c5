"""What keeps preflight from a Hub model: each with its own reason, a policy that fits, and words that help."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import hubserver
from finetune_trainer.contract.failure import FAILURES, FailureReason, Policy
from hubserver import Fault, Hub
from trainer.hub_job import End, HubJob
from trainer.pods import free_port

SECRET = "hf_thisTokenIsNeverShown"
STRANGER = "hf_thisTokenOpensNothing"
BLANKS = "hf_this token\nis none"
ROUTES = re.compile(
    r"GET /api/models/[^/]+/[^/]+/revision/[^/]+|HEAD /[^/]+/[^/]+/resolve/[^/]+/[^/]+"
    r"|(HEAD|GET) /api/resolve-cache/models/[^/]+/[^/]+/[0-9a-f]{40}/[^/]+|GET /[^/]+/[^/]+/[0-9a-f]{64}"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that is wrong.

    Attributes:
        reason: the expected reason.
        says: parts of the message; the model's URI is always one.
        model: fields of the recipe's model section besides its URI.
        token: as in `HubJob`.
        gated, private, files, fault: the model on the Hub; files None: there is none.
        environment: of the process.
        up: whether there is a Hub at all.
    """

    reason: FailureReason
    says: tuple[str, ...]
    model: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False
    private: bool = False
    files: str | None = "whole"
    fault: Fault | None = None
    environment: dict[str, str] = field(default_factory=dict)
    up: bool = True


_AGAIN = {"Retry-After": "0"}
CASES = {
    "gated-no-token": Case(
        reason=FailureReason.MODEL_ACCESS_DENIED,
        says=("is gated", "accept its licence", "model.tokenSecretRef"),
        gated=True,
    ),
    "gated-stranger": Case(
        reason=FailureReason.MODEL_ACCESS_DENIED,
        says=("is gated", "has no access", "not in the authorized list"),
        gated=True,
        token=STRANGER,
    ),
    "wrong-token": Case(
        reason=FailureReason.MODEL_ACCESS_DENIED, says=("refuses the token", "put a new one"), token="hf_unknownToAll"
    ),
    "weak-token": Case(
        reason=FailureReason.MODEL_ACCESS_DENIED,
        says=("needs the right to read it", "fine-grained"),
        token=SECRET,
        fault=Fault(
            path="/{model}/resolve/",
            status=403,
            headers={"X-Error-Message": "enable it in the fine-grained token's settings"},
        ),
    ),
    "secret-missing": Case(
        reason=FailureReason.MODEL_ACCESS_DENIED, says=("the Secret of model.tokenSecretRef is missing",), token=""
    ),
    "token-with-blanks": Case(reason=FailureReason.MODEL_ACCESS_DENIED, says=("holds blanks", "alone"), token=BLANKS),
    "no-model": Case(
        reason=FailureReason.MODEL_NOT_FOUND, says=("there is no such model", "model.tokenSecretRef"), files=None
    ),
    "private": Case(
        reason=FailureReason.MODEL_NOT_FOUND, says=("the token's account may not see it",), private=True, token=STRANGER
    ),
    "no-revision": Case(
        reason=FailureReason.MODEL_NOT_FOUND,
        says=("at revision v9", "no such revision", "model.revision"),
        model={"revision": "v9"},
    ),
    "offline": Case(
        reason=FailureReason.MODEL_NOT_FOUND,
        says=("HF_HUB_OFFLINE=1", "unset it", "mirror the model to s3:// or pvc://"),
        environment={"HF_HUB_OFFLINE": "1"},
    ),
    "pickled": Case(
        reason=FailureReason.MODEL_INVALID, says=("pytorch_model.bin only", "save_pretrained"), files="pickled"
    ),
    "too-many": Case(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        says=("429", "try again in 0 s", "token"),
        fault=Fault(path="/api/models/{model}/", status=429, headers=_AGAIN),
    ),
    "down": Case(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        says=("answers 503",),
        fault=Fault(path="/api/models/{model}/", status=503, headers=_AGAIN),
    ),
    "files-down": Case(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        says=("config.json", "answers 503"),
        fault=Fault(path="/{model}/resolve/", status=503, headers=_AGAIN),
    ),
    "dropped": Case(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        says=("config.json", "cannot be reached"),
        fault=Fault(path="/api/resolve-cache/models/{model}/", status=0),
    ),
    "no-hub": Case(
        reason=FailureReason.STORAGE_UNAVAILABLE,
        says=("what answers is no Hub", "HF_ENDPOINT"),
        fault=Fault(path="/api/models/{model}/", status=200, body=b"<html>a login page</html>"),
    ),
    "unreachable": Case(reason=FailureReason.STORAGE_UNAVAILABLE, says=("cannot be reached (ConnectError",), up=False),
}
WAYS = [pytest.param(name, id=name) for name in CASES]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hubserver.running() as hub:
        hub.readers |= {SECRET: {f"org/{name}" for name in CASES}, STRANGER: set()}
        yield hub


@pytest.fixture(scope="module")
def ends(hub: Hub, tiny_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, End]:
    """Every case, at the same time: most of them wait for the next try."""
    pickled = {name: content for name, content in tiny_files.items() if not name.endswith(".safetensors")}
    files = {"whole": tiny_files, "pickled": {**pickled, "pytorch_model.bin": b"\x80\x02"}}
    nowhere = f"http://127.0.0.1:{free_port()}"

    def run(name: str) -> End:
        case = CASES[name]
        folder: Path = tmp_path_factory.mktemp(name)
        model: dict[str, Any] = {"uri": f"hf://org/{name}", **case.model}
        endpoint = hub.endpoint if case.up else nowhere
        return HubJob(folder=folder, endpoint=endpoint, model=model, token=case.token).preflight(**case.environment)

    for name, case in CASES.items():
        if case.files is not None:
            hub.add(f"org/{name}", files[case.files], gated=case.gated, private=case.private)
        if case.fault is not None:
            hub.faults.append(replace(case.fault, path=case.fault.path.format(model=f"org/{name}")))
    with ThreadPoolExecutor(6) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


@pytest.mark.parametrize("name", WAYS)
def test_the_reason_is_the_right_one_and_the_message_helps(name: str, ends: dict[str, End]) -> None:
    case, end = CASES[name], ends[name]
    assert end.message.reason is case.reason, end.everything
    assert end.code == FAILURES[case.reason].exit_code
    for part in case.says:
        assert part in end.message.message
    assert "Traceback" not in end.everything
    others = [line for line in end.stderr.splitlines() if " warn waiting message=" not in line]
    assert others == [], "the client's own complaints are kept out"


@pytest.mark.parametrize("name", WAYS)
def test_no_token_is_shown(name: str, ends: dict[str, End]) -> None:
    if token := CASES[name].token:
        for word in token.split():
            assert len(word) < 9 or word not in ends[name].everything


def test_faults_of_the_hub_are_tried_again_and_the_users_are_not() -> None:
    for case in CASES.values():
        expected = Policy.RETRY if case.reason is FailureReason.STORAGE_UNAVAILABLE else Policy.FAIL
        assert FAILURES[case.reason].policy is expected


@pytest.mark.parametrize("name", WAYS)
def test_nothing_else_is_asked_of_the_hub(name: str, ends: dict[str, End], hub: Hub) -> None:
    asked = hub.asked(f"org/{name}")
    silent = name in ("offline", "unreachable", "secret-missing", "token-with-blanks")
    assert bool(asked) is not silent
    assert [item for item in asked if not ROUTES.fullmatch(f"{item.method} {item.path}")] == []
    assert {item.path for item in hub.requests if "/org/" not in item.path} == set(), "no telemetry"
