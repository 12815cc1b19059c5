"""`kubectl finetune report` and `completion`."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from component.plane import Plane
from component.plugin.conftest import User
from component.plugin.kubelet import Logs, kubelet
from component.plugin.test_logs import a_pod

SECRET = "hf_" + "a" * 34


@pytest.fixture
def logs(plane: Plane, tmp_path: Path) -> Iterator[Logs]:
    with kubelet(plane, tmp_path) as running:
        yield running


def test_the_bundle_has_everything_but_secrets(user: User, logs: Logs, tmp_path: Path) -> None:
    job = user.applies("job", scheduling={"env": [{"name": "HTTPS_PROXY", "value": "http://ann:geheim@proxy"}]})
    user.runs("job")
    a_pod(user, job, "job-train-2-x7", attempt=2, phase="Running")
    logs.texts = {"job-train-2-x7": f"loading with {SECRET}\nstep 1\x1b[2J\n".encode()}
    target = tmp_path / "bundle.tar.gz"
    said = user.types("report", "job", "--to", target)
    assert said.code == 0, said.err
    assert target.stat().st_mode & 0o077 == 0
    with tarfile.open(target) as archive:
        files = {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    assert sorted(files) == sorted(
        f"job-report/{name}"
        for name in (
            "versions.txt",
            "job.yaml",
            "jobs.yaml",
            "pods.yaml",
            "events.yaml",
            "status.txt",
            "logs/job-train-2-x7.txt",
        )
    )
    everything = "\n".join(files.values())
    assert SECRET not in everything
    assert "geheim" not in everything
    assert "HTTPS_PROXY" in files["job-report/job.yaml"]
    assert files["job-report/logs/job-train-2-x7.txt"] == "loading with (left out)\nstep 1\\x1b[2J\n"
    assert "62% 310/500" in files["job-report/status.txt"]
    assert "Kubernetes v1." in files["job-report/versions.txt"]
    again = user.types("report", "job", "--to", target)
    assert (again.code, "is there already" in again.err) == (1, True)


def test_bash_completes_words_values_and_names_of_jobs(user: User, tmp_path: Path) -> None:
    for name in ("support-bot", "support-cat", "other"):
        user.applies(name)
    program = tmp_path / "bin/finetune"
    program.parent.mkdir()
    code = "from finetune_operator.cli import main; raise SystemExit(main())"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -c "{code}" "$@"\n')
    program.chmod(0o755)

    def completed(*words: str) -> list[str]:
        script = (
            f"source <(finetune completion bash)\nCOMP_WORDS=(finetune {' '.join(map(repr, words))})\n"
            f"COMP_CWORD={len(words)}\n_finetune\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        )
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("re") == ["result", "resume", "rerun", "report"]
    assert completed("status", "support-") == ["support-bot", "support-cat"]
    assert completed("status", "-n", "kube-public", "") == []
    assert completed("result", "support-bot", "--serve", "k") == ["kserve"]
    assert completed("logs", "other", "--fol") == ["--follow"]
    assert completed("local", "") == ["run", "preflight", "plan"]


def test_kubectl_gets_the_answer_that_it_expects(
    user: User, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from finetune_operator.cli.completer import main

    user.applies("support-bot")
    monkeypatch.setattr("sys.argv", ["kubectl_complete-finetune", "watch", ""])
    assert main() == 0
    assert capsys.readouterr().out == "support-bot\n:4\n"
    monkeypatch.setattr("sys.argv", ["kubectl_complete-finetune", "submit", ""])
    main()
    assert capsys.readouterr().out == ":0\n", "files may come"
