"""`kubectl finetune submit` and `watch`: from a file to the end of the job."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from component.plugin.conftest import User
from finetune_operator.cli import waiting


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Acts beside the block. What it raises is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def seen(user: User, *fields: str) -> None:
    """Waits until the API server has the job."""
    while not user.plane.succeeds("get", "ftj", "job", "-n", user.namespace):
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PERIOD_SECONDS", 0.1)


def test_submit_says_what_kubectl_would(user: User) -> None:
    file = user.file("job")
    assert user.types("submit", file).out == "finetunejob.finetune.dev/job created\n"
    assert user.types("submit", file).out == "finetunejob.finetune.dev/job unchanged\n"
    user.file("job", retry={"limit": 1})
    assert user.types("submit", file).out == "finetunejob.finetune.dev/job configured\n"
    assert user.stored()["spec"]["retry"]["limit"] == 1
    user.file("job", lora={"rank": 8})
    refused = user.types("submit", file)
    assert refused.code == 1
    assert "lora is immutable" in refused.err


def test_each_job_goes_to_the_namespace_that_it_names(user: User) -> None:
    first, second = (json.loads(user.file(name).read_text()) for name in ("one", "two"))
    first["metadata"]["namespace"] = "kube-public"
    (user.files / "one.yaml").unlink()
    (user.files / "two.yaml").write_text(f"{json.dumps(first)}\n---\n{json.dumps(second)}\n")
    try:
        assert user.types("submit", user.files / "two.yaml").code == 0
        assert [item["metadata"]["name"] for item in user.plane.items("ftj", "kube-public")] == ["one"]
        assert [item["metadata"]["name"] for item in user.plane.items("ftj", user.namespace)] == ["two"]
    finally:
        user.plane.kubectl("delete", "ftj", "--all", "-n", "kube-public")


def test_a_file_that_is_wrong_never_reaches_the_cluster(user: User) -> None:
    wrong = user.types("submit", user.file("job", lora={"rank": 0}))
    assert wrong.code == 10
    assert "spec.lora.rank" in wrong.err
    manifest = json.loads(user.file("job").read_text())
    manifest["metadata"]["namespace"] = "elsewhere"
    (user.files / "job.yaml").write_text(json.dumps(manifest))
    other = user.types("submit", user.files / "job.yaml", "-n", user.namespace)
    assert "job is for namespace elsewhere" in other.err
    assert not user.plane.items("ftj", user.namespace)


def test_what_another_client_has_set_is_taken_over_only_when_asked(user: User) -> None:
    user.types("submit", user.file("job", retry={"limit": 1}))
    user.plane.kubectl(
        "patch", "ftj", "job", "-n", user.namespace, "--type=merge", "--patch", '{"spec":{"retry":{"limit":5}}}'
    )
    file = user.file("job", retry={"limit": 2})
    refused = user.types("submit", file)
    assert refused.code == 1
    assert "--force-conflicts takes them over" in refused.err
    assert user.types("submit", "--force-conflicts", file).code == 0
    assert user.stored()["spec"]["retry"]["limit"] == 2


def test_submit_and_wait_ends_with_the_reason_of_the_failure(user: User) -> None:
    def ends() -> None:
        seen(user)
        user.fails("job")

    with meanwhile(ends):
        said = user.types("submit", "--wait", user.file("job"))
    assert said.code == 13
    assert said.out == "finetunejob.finetune.dev/job created\n"
    assert "job failed: DatasetInvalid: line 3: not JSON" in said.err


def test_watch_tells_each_change_once_and_ends_with_the_adapter(user: User) -> None:
    user.applies("job")

    def life() -> None:
        user.reports(
            "job",
            observedGeneration=1,
            phase="Starting",
            attempt=1,
            conditions=[user.condition("Succeeded", "Unknown", "Unschedulable", "0/1 nodes are available")],
        )
        time.sleep(0.5)
        user.runs("job")
        time.sleep(0.5)
        user.succeeds("job")

    with meanwhile(life):
        said = user.types("watch", "job")
    assert said.code == 0
    lines = said.err.splitlines()
    told = [line.removeprefix("job: ") for line in lines]
    assert "Starting: 0/1 nodes are available" in told
    assert "Running: attempt 2 trains" in told
    assert "step 310/500, loss 1.2345, 12,500 tokens/s, 90m left" in told
    assert "job succeeded: the adapter is at s3://models/adapters/job/0123456789ab/2-0a1b2c3d" in lines
    assert lines[-1] == "next: kubectl finetune result job"
    assert len(set(told)) == len(told)


def test_on_a_terminal_there_is_a_bar_and_nothing_of_it_is_left(user: User) -> None:
    user.applies("job")
    user.runs(
        "job", progress={"stage": "Training", "step": 310, "totalSteps": 500, "loss": "1.2", "waitingFor": "\x1b]0;x"}
    )
    code = "from finetune_operator.cli import main; raise SystemExit(main(['watch', 'job']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "100"}
    controller, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while chunk := read_terminal(controller):
            shown += chunk
            if b"waits for: \\x1b]0;x" in shown and user.stored()["status"]["phase"] == "Running":
                user.succeeds("job")
        assert process.wait() == 0
    os.close(controller)
    text = shown.decode()
    assert "[##################------------] 62% 310/500, Training" in text
    assert "loss 1.2" in text
    assert "\x1b]0;" not in text
    assert "step 310/500" not in text
    assert "job succeeded: the adapter is at" in text.rpartition("\x1b[2K")[2]


def read_terminal(controller: int) -> bytes:
    """What has come from a terminal; nothing when its program has ended."""
    try:
        return os.read(controller, 1 << 16)
    except OSError:
        return b""


def test_watch_gives_up_when_asked_and_when_the_job_is_gone(user: User) -> None:
    user.applies("job")
    late = user.types("watch", "job", "--timeout", "1s")
    assert (late.code, late.err.splitlines()[-1]) == (124, "job has not ended (not seen); it goes on")
    assert user.types("watch", "job", "--timeout", "soon").code == 2
    assert user.types("watch", "none").code == 1

    def removed() -> None:
        time.sleep(0.5)
        user.plane.kubectl("delete", "ftj", "job", "-n", user.namespace)

    with meanwhile(removed):
        gone = user.types("watch", "job")
    assert (gone.code, gone.err.splitlines()[-1]) == (1, "job was deleted while it was waited for")
