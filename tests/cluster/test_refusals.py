"""Jobs that cannot work end within seconds, before any training pod, with the fact in the message."""

import json
from typing import Any

import pytest

from cluster.lab import Lab, condition
from demo.s3 import keys_under, s3_client
from localcluster import Keys

BROKEN_LINE = 7312


@pytest.fixture(scope="module")
def broken(bucket: str, target: Any) -> str:
    """Data and models that are wrong in one way each."""
    client = s3_client(target.s3)
    rows = [json.dumps({"text": f"row {n}"}) for n in range(1, 10_001)]
    rows[BROKEN_LINE - 1] = '{"text": "row'
    client.put_object(Bucket=bucket, Key="broken/line.jsonl", Body="\n".join(rows).encode())
    client.put_object(Bucket=bucket, Key="broken/empty.jsonl", Body=b"")
    for key in keys_under(client, bucket, "models/tiny/"):
        if not key.endswith(".safetensors"):
            source = {"Bucket": bucket, "Key": key}
            client.copy_object(Bucket=bucket, Key=key.replace("models/tiny/", "broken/no-weights/"), CopySource=source)
    return bucket


CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "missing-bucket": ({"dataset": {"uri": "s3://no-such-bucket/train.jsonl"}}, "StorageNotFound", ["no-such-bucket"]),
    "missing-object": ({"dataset": {"uri": "s3://BUCKET/data/nothing.jsonl"}}, "DatasetNotFound", ["nothing.jsonl"]),
    "wrong-key": ({"storage": {"secretRef": {"name": "wrong-keys"}}}, "StorageAccessDenied", ["InvalidAccessKeyId"]),
    "no-secret": ({"storage": {"secretRef": {"name": "no-such-secret"}}}, "StorageAccessDenied", ["no-such-secret"]),
    "read-only": ({"storage": {"secretRef": {"name": "reader-keys"}}}, "StorageAccessDenied", ["adapters"]),
    "broken-line": (
        {"dataset": {"uri": "s3://BUCKET/broken/line.jsonl"}},
        "DatasetInvalid",
        [f"line.jsonl:{BROKEN_LINE}"],
    ),
    "empty": ({"dataset": {"uri": "s3://BUCKET/broken/empty.jsonl"}}, "DatasetInvalid", ["empty.jsonl"]),
    "no-weights": ({"model": {"uri": "s3://BUCKET/broken/no-weights"}}, "ModelInvalid", ["safetensors"]),
    "no-model": ({"model": {"uri": "s3://BUCKET/models/nothing"}}, "ModelNotFound", ["models/nothing"]),
    "bad-endpoint": (
        {
            "storage": {"endpoint": "http://nowhere.invalid:9000", "secretRef": {"name": "s3-credentials"}},
            "retry": {"limit": 0},
        },
        "StorageUnavailable",
        ["nowhere.invalid"],
    ),
}


@pytest.fixture(scope="module")
def refused(shared_lab: Lab, broken: str) -> Lab:
    """All cases applied at once: what is waited for is the same."""
    keys = shared_lab.target.s3
    assert keys.reader is not None
    shared_lab.secret("wrong-keys", Keys("no-such-key-id", "no-such-secret"))
    shared_lab.secret("reader-keys", keys.reader)
    for name, (spec, _, _) in CASES.items():
        values = json.loads(json.dumps(spec).replace("BUCKET", broken))
        if "storage" in values:
            values["storage"].setdefault("endpoint", shared_lab.endpoint)
        values["output"] = {"uri": f"s3://{broken}/adapters/{shared_lab.namespace}/{name}"}
        shared_lab.apply(name, **values)
    return shared_lab


@pytest.mark.parametrize("name", CASES)
def test_a_job_that_cannot_work_says_why_before_a_gpu_is_asked_for(refused: Lab, broken: str, name: str) -> None:
    _, reason, words = CASES[name]
    status = refused.until_finished(name)
    assert status["phase"] == "Failed"
    assert status["failure"]["reason"] == reason, status["failure"]
    for word in words:
        assert word in condition(status, "Finished")["message"]
    assert refused.children(name, "train") == []
    assert keys_under(s3_client(refused.target.s3), broken, f"adapters/{refused.namespace}/{name}/") == []
