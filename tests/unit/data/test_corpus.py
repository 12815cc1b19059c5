"""Every malformed file gets the verdict that a user needs: the right line, the right kind, words that help."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.preflight_report import DataProblem, Unit
from finetune_trainer.contract.recipe import DatasetSpec, StorageSpec
from finetune_trainer.data.problems import ProblemKind
from finetune_trainer.data.read_examples import read_examples
from finetune_trainer.data.scan import DatasetScan
from finetune_trainer.inputs.sources import dataset_objects
from finetune_trainer.storage.registry import StoreRegistry

from .corpus import GOOD, Case, cases
from .format_corpus import format_cases
from .line_corpus import line_cases

pytestmark = pytest.mark.extras

CASES = [*cases(), *line_cases(), *format_cases()]


def spec_of(case: Case, path: Path) -> DatasetSpec:
    return DatasetSpec.model_validate({"uri": f"file://{path}", **case.spec})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case, tmp_path: Path) -> None:
    path = tmp_path / case.file
    path.write_bytes(case.content)
    dataset, places = spec_of(case, path), StoreRegistry(StorageSpec(), None)
    objects = dataset_objects(dataset, places)

    scan = DatasetScan(dataset, objects, places)
    sound = [(file, line) for _, file, line, _ in scan]

    found = [(problem.line, str(problem)) for problem in scan.findings.problems]
    assert len(found) == len(case.problems), found
    assert scan.findings.kinds == Counter(kind for _, kind, _ in case.problems)
    for (line, text), (expected_line, _, word) in zip(found, case.problems, strict=True):
        assert expected_line in (line, -1), text
        assert word in text
        assert text.startswith((f"{case.file}:{line}", f"{case.file} row {line}"))
    assert case.rows in (scan.rows, -1)
    assert scan.blank_lines == case.blank
    if case.schema is not None:
        assert scan.schema == case.schema
    if case.duplicates is not None:
        assert scan.duplicates.count == case.duplicates
    for problem in scan.findings.problems:
        assert str(problem).isprintable()
        assert DataProblem.model_validate_json(problem.to_json()) == problem
        assert problem.remedy
        assert problem.byte_offset is not None or problem.unit is Unit.ROW
        if case.content.startswith((b"{", b"\xef\xbb\xbf{")) and problem.unit is Unit.LINE:
            before = case.content.split(b"\n")[: problem.line - 1]
            assert problem.byte_offset == sum(len(line) + 1 for line in before)
    about_lines = ProblemKind.CHECKSUM not in scan.findings.kinds
    bad_lines = {line for line, _ in found} if about_lines else set()
    assert not bad_lines & {line for _, line in sound}
    # The trainer's reading comes to the same verdict.
    reading = read_examples(dataset, objects, places)
    if not case.problems:
        assert len(list(reading)) == case.rows
    else:
        with pytest.raises(TrainerError) as raised:
            list(reading)
        assert raised.value.reason is FailureReason.DATASET_INVALID
        assert case.problems[0][2] in raised.value.message


def test_there_are_many_cases_with_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) >= 230
    assert len({(case.name, case.content) for case in CASES}) == len(CASES)


def test_the_right_checksum_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(GOOD)
    dataset = DatasetSpec(uri=f"file://{path}", sha256=hashlib.sha256(GOOD).hexdigest())
    places = StoreRegistry(StorageSpec(), None)
    assert len(list(read_examples(dataset, dataset_objects(dataset, places), places))) == 1
