"""The command line as such: words that have moved, several files, ends without a traceback."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_operator.cli import main
from finetune_operator.cli.app import application

pytestmark = pytest.mark.extras

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: {name}}}
spec:
  model: {{uri: "hf://org/base"}}
  dataset: {{uri: "s3://data/train.jsonl"}}
  output: {{uri: "s3://models/adapters"}}
"""


@pytest.mark.parametrize("word", ["run", "preflight"])
def test_a_word_that_has_moved_does_nothing_and_says_what_to_type(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(name="one"))
    assert main([word, str(tmp_path / "job.yaml"), "--work", "folder", "-o", "json"]) == 2
    said = capsys.readouterr().err
    assert f"`finetune local {word} {tmp_path}/job.yaml --work folder -o json`" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["valdate"], ["No such command 'valdate'", "'validate'"]),
        (["validate"], ["Missing argument 'FILE...'"]),
        (["validate", "--output", "xml", "job.yaml"], ["'xml'", "'text', 'json'"]),
        (["local", "run", "--bogus", "job.yaml"], ["--bogus"]),
        (["local"], ["Missing command"]),
    ],
)
def test_a_wrong_command_line_is_a_sentence(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    for word in [*words, "--help"]:
        assert word in said


def test_without_a_word_it_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].split()
    shown = {name for name, command in application().commands.items() if not command.hidden}
    assert shown - {"local"} <= set(listed)
    assert not {"run", "preflight"} & shown


def test_an_unexpected_error_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("finetune_operator.cli.jobfiles.documents_of", lambda *_: 1 / 0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert main(["validate", "-"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("unexpected error: ZeroDivisionError: division by zero\n")
    assert "Traceback" not in said
    monkeypatch.setenv("FINETUNE_TRACEBACK", "1")
    assert main(["validate", "-"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_without_its_packages_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')")
    done = subprocess.run(
        [sys.executable, "-c", "from finetune_operator.cli import main; raise SystemExit(main([]))"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "typer is not installed: pip install '.[cli]' in a checkout of finetune-operator\n"


def test_several_files_folders_and_documents_are_validated_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "jobs"
    (folder / "deeper").mkdir(parents=True)
    (folder / "two.yaml").write_text("\n---\n".join([JOB.format(name="one"), "kind: Secret", JOB.format(name="two")]))
    (folder / "notes.txt").write_text("no YAML: [")
    (folder / "other.yml").write_text("kind: ConfigMap\n")
    (folder / "deeper/three.json").write_text(json.dumps({"kind": "Secret"}))
    (tmp_path / "four.yaml").write_text(JOB.format(name="four"))
    assert main(["validate", str(folder), str(tmp_path / "four.yaml")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}/two.yaml: one is valid",
        f"{folder}/two.yaml: two is valid",
        f"{tmp_path}/four.yaml: four is valid",
    ]
    (folder / "deeper/three.json").write_text(JOB.format(name="Three"))
    assert main(["validate", "-o", "json", str(folder)]) == 0
    assert [report["name"] for report in json.loads(capsys.readouterr().out)] == ["one", "two"]
    assert main(["validate", "--recursive", str(folder)]) == 10
    assert f"{folder}/deeper/three.json: 1 problem\n  metadata.name: " in capsys.readouterr().err


def test_every_wrong_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(JOB.format(name="A") + "\n---\n" + JOB.format(name="b"))
    (tmp_path / "b.yaml").write_text(JOB.format(name="b"))
    (tmp_path / "c.yaml").write_text("a: [")
    (tmp_path / "empty").mkdir()
    places = [str(tmp_path), str(tmp_path / "empty"), str(tmp_path / "none.yaml")]
    assert main(["validate", *places]) == 10
    said = capsys.readouterr().err
    for words in (
        "a.yaml: 1 problem\n  metadata.name",
        "c.yaml: not YAML",
        "empty: expected a FineTuneJob, found nothing",
        "none.yaml: No such file",
        f"b.yaml: b is in {tmp_path}/a.yaml already",
    ):
        assert words in said


def test_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(JOB.format(name="one").encode())))
    assert main(["validate", "-"]) == 0
    assert capsys.readouterr().out == "standard input: one is valid\n"
