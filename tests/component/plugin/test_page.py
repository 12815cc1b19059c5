"""docs/kubectl-plugin.md: every command of the page is run, in its order, and ends well."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import s3server
from component.plane import REPOSITORY, Plane
from component.plugin.conftest import User
from component.plugin.kubelet import Logs, kubelet
from component.plugin.test_logs import a_pod
from component.plugin.test_result import Bucket
from finetune_operator.cli.app import application

PAGE = (REPOSITORY / "docs/kubectl-plugin.md").read_text()
LINES = re.findall(r"^kubectl finetune (.*)$", PAGE, re.MULTILINE)
NAME = "support-bot"


@pytest.fixture
def logs(plane: Plane, tmp_path: Path) -> Iterator[Logs]:
    (tmp_path / "kubelet").mkdir()
    with kubelet(plane, tmp_path / "kubelet") as running:
        yield running


def test_every_command_has_an_example() -> None:
    commands = {name for name, command in application().commands.items() if not command.hidden}
    shown = {line.split()[0] for line in LINES} | {"completion", "local"}
    assert shown == commands
    assert "finetune completion bash" in PAGE


def test_every_line_does_what_the_page_says(
    user: User, logs: Logs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with s3server.running() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.reader.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.reader.secret_key)
        for line in LINES:
            words = shlex.split(line.replace("http://localhost:8333", server.endpoint), comments=True)
            prepare(words, user, server)
            said = user.types(*words)
            assert said.code == 0, f"{line}\n{said.err}"
            if words[0] == "submit" and "--wait" not in words:
                job = user.stored(NAME)
                user.succeeds(NAME)
                a_pod(user, job, f"{NAME}-train-1-a", phase="Succeeded")
                logs.texts = {f"{NAME}-train-1-a": b"step 1\n"}
    assert (tmp_path / "adapter/adapter_config.json").exists()
    assert (tmp_path / "support-bot.tar.gz").exists()


def prepare(words: list[str], user: User, server: s3server.S3Server) -> None:
    """Brings the job into the state that a line is about."""
    match words[0]:
        case "suspend":
            user.runs(NAME)
        case "rerun" | "compare":
            user.succeeds(NAME)
        case "result" if "--to" in words:
            user.reports(NAME, runToken=user.stored(NAME)["spec"].get("runToken"))
            Bucket(user, server).holds(NAME)
    if words[0] == "compare":
        user.applies(words[2], lora={"rank": 8})
