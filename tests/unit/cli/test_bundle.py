"""A support bundle has no secrets."""

import json

import pytest

from finetune_operator.cli.views.bundle import text_without_secrets, without_secrets

pytestmark = pytest.mark.extras

KEY = "AKIA" + "A1B2C3D4E5F6G7H8"
SECRET = "wJalrXUtnFEMIzK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("text", "secret", "kept"),
    [
        ("token hf_" + "a" * 34, "hf_aaaa", "token "),
        (f"denied for {KEY}", KEY, "denied for "),
        (f"AWS_SECRET_ACCESS_KEY={SECRET} x", SECRET, " x"),
        (f'{{"aws_secret_access_key": "{SECRET}"}}', SECRET, '"}'),
        ("Authorization: Bearer abc.def", "abc.def", "Authorization: Bearer "),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0abcd.c2lnbmF0dXJl", "eyJhbGci", ""),
        ("GET https://h/data.jsonl?X-Amz-Signature=abc&b=c 200", "abc", "https://h/data.jsonl?"),
        ("https://user:pass@host/", "user:pass", "@host/"),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", "MIIE", "\nb"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut", "MIIE", ""),
    ],
)
def test_what_looks_like_a_secret_is_left_out_of_texts(text: str, secret: str, kept: str) -> None:
    cleaned = text_without_secrets(text)
    assert secret not in cleaned
    assert kept in cleaned
    assert "(left out)" in cleaned


def test_ordinary_texts_stay_as_they_are() -> None:
    text = "step 3/5 loss 1.2 s3://models/adapters/job/0123456789ab sha256:" + "0" * 64
    assert text_without_secrets(text) == text


def test_an_object_keeps_what_helps() -> None:
    pod = {
        "metadata": {
            "name": "pod",
            "managedFields": [{"manager": "kubectl"}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": '{"env": "SECRET-VALUE"}',
                "finetune.dev/recipe": json.dumps({"dataset": {"uri": "https://h/d.jsonl?sig=SECRET-VALUE"}}),
            },
        },
        "data": {"key": "SECRET-VALUE"},
        "spec": {
            "containers": [
                {"env": [{"name": "PROXY", "value": "SECRET-VALUE"}, {"name": "NODE", "valueFrom": {"fieldRef": {}}}]}
            ],
            "storage": {"secretRef": {"name": "keys"}, "caBundle": "SECRET-VALUE", "endpoint": "http://minio:9000"},
            "token": "SECRET-VALUE",
            "gpus": 2,
        },
    }
    cleaned = without_secrets(pod)
    assert "SECRET-VALUE" not in json.dumps(cleaned)
    assert cleaned["spec"]["storage"]["secretRef"] == {"name": "keys"}
    assert cleaned["spec"]["storage"]["endpoint"] == "http://minio:9000"
    assert [item["name"] for item in cleaned["spec"]["containers"][0]["env"]] == ["PROXY", "NODE"]
    assert cleaned["spec"]["gpus"] == 2
    assert "managedFields" not in cleaned["metadata"]
