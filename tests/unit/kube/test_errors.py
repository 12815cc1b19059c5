"""What the API server says, classified."""

import json

import pytest

from finetune_operator.kube import errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Invalid),
        (401, errors.Unavailable),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.Expired),
        (422, errors.Invalid),
        (429, errors.Throttled),
        (500, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
def test_each_status_has_its_error_class_and_the_servers_message(status: int, kind: type[errors.KubeError]) -> None:
    body = json.dumps({"kind": "Status", "message": "the words"}).encode()
    error = errors.from_response(status, {"Retry-After": "7"}, body)
    assert type(error) is kind
    assert (error.status, error.message, error.retry_after) == (status, "the words", 7.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"message": 5}', b"\xff\xfe"])
def test_an_answer_that_is_no_status_still_gives_a_message(body: bytes) -> None:
    error = errors.from_response(502, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, body)
    assert error.message.startswith("HTTP 502")
    assert error.retry_after == 0


def test_a_message_of_the_server_has_no_control_characters() -> None:
    body = json.dumps({"message": "denied by \x1b[2J\u202epolicy"}).encode()
    assert errors.from_response(403, {}, body).message == "denied by \\x1b[2J\\u202epolicy"
    assert errors.from_response(502, {}, b"\x1b[2J").message == "HTTP 502: \\x1b[2J"
