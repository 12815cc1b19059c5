"""`make demo`: installs the operator, puts a real model and data into S3, applies one YAML and follows the job.

It runs on the local cluster, or on that of KUBECONFIG (see docs/testing.md).
"""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo import installation
from demo.artefact import download, verified_manifest
from demo.s3 import s3_client
from finetune_trainer.runtime import log
from localcluster import ClusterError, Target

NAMESPACE = "demo"
BUCKET = "finetune-demo"
JOB = "support-bot"
LIMIT_SECONDS = 1800
QUESTIONS = (
    "My mouse is not responding.",
    "What is the speed of light?",
    "Who was the first man on the moon?",
)


def main() -> int:
    """Runs the demo. Returns 0 when the job succeeded, else 1."""
    try:
        cluster = Target.current()
        with cluster.with_s3(installation.S3_IMAGE) as target:
            succeeded = _run(target)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if not succeeded:
        return 1
    if cluster.local is not None:
        print("\nThe cluster is still up: `make cluster-down` takes it away and leaves nothing behind.")
    else:
        print(f"\nStill there: the operator (`kubectl delete -k manifests/default`) and the namespace {NAMESPACE}.")
        if cluster.given_s3 is None:
            print("The S3 server that was deployed for the demo is gone, and with it model, data and adapter.")
    return 0


def _run(target: Target) -> bool:
    """Runs all steps from the installation to the answers. Returns whether the job succeeded."""
    _title("Installing the operator")
    _show(target, "apply", "-k", "manifests/default")
    installation.install(target)
    model = _fill_storage(target)
    status = _train(target)
    if status.get("phase") != "Succeeded":
        print(f"the job ended as {status.get('phase')}: {status.get('failure')}", file=sys.stderr)
        return False
    _compare(target, status, model)
    return True


def _fill_storage(target: Target) -> Path:
    """Creates a bucket with SmolLM2-135M-Instruct and conversations. Returns the model's folder on this machine."""
    from demo.smollm2 import chatterbot_rows, prepare_smollm2

    _title("Putting a model and conversations into S3")
    log.quieten()
    model, rows = prepare_smollm2(), chatterbot_rows()
    client = s3_client(target.s3)
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for path in sorted(model.iterdir()):
        client.upload_file(str(path), BUCKET, f"models/SmolLM2-135M-Instruct/{path.name}")
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    client.put_object(Bucket=BUCKET, Key="data/train.jsonl", Body=data.encode())
    print(
        f"s3://{BUCKET}/models/SmolLM2-135M-Instruct and s3://{BUCKET}/data/train.jsonl ({len(rows):,} rows), such as"
    )
    print(f"  {json.dumps(rows[0], ensure_ascii=False)}")
    return model


def _train(target: Target) -> dict[str, object]:
    """Applies the YAML and follows the job to its end. Returns its status."""
    _title("One YAML")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    target.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3-credentials", "namespace": NAMESPACE},
        "stringData": {
            "AWS_ACCESS_KEY_ID": target.s3.admin.access_key,
            "AWS_SECRET_ACCESS_KEY": target.s3.admin.secret_key,
        },
    }
    target.kubectl.apply(secret)
    text = (Path(__file__).parent / "job.yaml").read_text(encoding="utf-8")
    text = text.replace("BUCKET", BUCKET).replace("ENDPOINT", target.publish_s3(NAMESPACE))
    text += f"  runToken: {time.strftime('%Y%m%d-%H%M%S')!r} # so that the demo trains each time it is run\n"
    print(text)
    target.kubectl("-n", NAMESPACE, "delete", "ftj", JOB, "--ignore-not-found")
    _show(target, "-n", NAMESPACE, "apply", "-f", "job.yaml")
    print(target.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text).strip())
    _show(target, "-n", NAMESPACE, "get", "ftj", "-w")
    watch = subprocess.Popen([*_kubectl(target), "-n", NAMESPACE, "get", "ftj", JOB, "-w"])
    try:
        target.kubectl(
            "-n", NAMESPACE, "wait", "--for=condition=Finished", f"ftj/{JOB}", f"--timeout={LIMIT_SECONDS}s",
            timeout=LIMIT_SECONDS + 10,
        )  # fmt: skip
        time.sleep(1)
    finally:
        watch.terminate()
        watch.wait()
    status: dict[str, object] = target.kubectl.get("-n", NAMESPACE, "ftj", JOB)["status"]
    return status


def _compare(target: Target, status: dict[str, object], model: Path) -> None:
    """Downloads the adapter, checks it against its manifest, and asks both models the same questions."""
    from demo.answers import ask

    _title("The adapter")
    with tempfile.TemporaryDirectory() as folder:
        run = download(target, status, Path(folder))
        manifest = verified_manifest(run, status)
        for file in manifest["files"]:
            print(f"  {file['sha256'][:12]}  {file['size']:>10,}  {file['path']}")
        print("every checksum matches the manifest")
        _title("The same questions to the base model and to the tuned one")
        with log.libraries_quiet():
            answers = list(ask(model, run / manifest["adapter"], QUESTIONS))
        for answer in answers:
            print(f"  {answer.question}\n    base   {answer.base}\n    tuned  {answer.tuned}")


def _kubectl(target: Target) -> list[str]:
    return [target.kubectl.program, f"--kubeconfig={target.kubeconfig}"]


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _show(_: Target, *arguments: str) -> None:
    print(f"$ kubectl {shlex.join(arguments)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
