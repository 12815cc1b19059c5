"""Reading a YAML: what is right is read whole, what is wrong is listed whole."""

from pathlib import Path

import pytest

from finetune_operator.cli import main
from finetune_operator.cli.jobfile import JobFileError, read_job_file

pytestmark = pytest.mark.extras

GOOD = """
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: support-bot}
spec:
  model: {uri: "hf://org/base"}
  dataset: {uri: "s3://data/train.jsonl"}
  output: {uri: "s3://models/adapters"}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_three_facts_are_enough(tmp_path: Path) -> None:
    job = read_job_file(written(tmp_path, GOOD), local=False)
    assert job.name == "support-bot"
    assert job.spec.lora.rank == 16


def test_other_documents_are_passed_over(tmp_path: Path) -> None:
    job = read_job_file(written(tmp_path, f"kind: Secret\n---\n{GOOD}\n---\n"), local=False)
    assert job.name == "support-bot"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["exactly one FineTuneJob", "nothing"]),
        (f"{GOOD}\n---\n{GOOD}", ["exactly one FineTuneJob, found FineTuneJob, FineTuneJob"]),
        ("kind: Job", ["found Job"]),
        ("a: [", ["not YAML"]),
        (GOOD.replace("v1alpha1", "v2"), ["apiVersion: must be finetune.dev/v1alpha1 (found 'finetune.dev/v2')"]),
        (GOOD.replace("support-bot", "Support.Bot"), ["metadata.name: ", "'Support.Bot'"]),
        (
            GOOD.replace("spec:", "spec: 3\nother:"),
            ["spec: must be an object (found 3)", 'other: unknown field "other"'],
        ),
        (
            GOOD + "  lora: {rank: 0, rnk: 3}\n",
            [
                "2 problems",
                "spec.lora.rank: ",
                'spec.lora.rnk: unknown field "spec.lora.rnk"; it is called rank here (found 3)',
            ],
        ),
        (GOOD + "  training: {learningRate: 2e-4}\n", ["spec.training.learningRate: ", '"2e-4"']),
        (GOOD + "  training: {epochs: 1, maxSteps: 2}\n", ["set epochs or maxSteps, not both"]),
        (
            GOOD.replace("spec:", "lora: {}\nspecs:"),
            ['lora: unknown field "lora"; here it is spec.lora', "it is called spec here"],
        ),
        (
            GOOD + "  lora: {rank: 8, rank: 4}\n",
            ["line 9: rank: is in line 9 already: remove one of the two (found"],
        ),
        (
            GOOD + "  lora:\n    rank: 8\n    r: 4\n    rank: 4\n",
            ["2 problems", "line 12: rank", "line 10", "spec.lora.r"],
        ),
        (GOOD.replace("hf://org/base", "hf:/org"), ["spec.model.uri: must be hf://org/name", "'hf:/org'"]),
    ],
)
def test_every_problem_is_named_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(JobFileError) as caught:
        read_job_file(written(tmp_path, text), local=False)
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_file_is_an_exit_code_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path / "none.yaml")]) == 10
    assert "No such file" in capsys.readouterr().err
    assert main(["local", "run", str(written(tmp_path, GOOD + "  lora: {rank: 0}\n"))]) == 10
    assert "spec.lora.rank" in capsys.readouterr().err


def test_fields_that_contradict_each_other_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["local", "run", str(written(tmp_path, GOOD + "  evaluation: {everySteps: 5}\n"))]) == 10
    assert "spec.evaluation.everySteps" in capsys.readouterr().err


def test_what_the_file_asks_of_the_cluster_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(written(tmp_path, GOOD + "  scheduling: {queueName: team_a}\n"))]) == 10
    assert "spec.scheduling.queueName" in capsys.readouterr().err
    assert main(["validate", str(written(tmp_path, GOOD + "  resources: {nodes: 2}\n"))]) == 0
    assert main(["local", "preflight", str(written(tmp_path, GOOD + "  resources: {nodes: 2}\n"))]) == 11
