"""Waiting for a CRD, with a program in kubectl's place that prints what the API server has, one answer a call."""

import json
from pathlib import Path
from typing import Any

from localcluster.kubectl import Kubectl


def answering(folder: Path, *answers: dict[str, Any]) -> Kubectl:
    for number, answer in enumerate(answers):
        (folder / f"{number}.json").write_text(json.dumps(answer))
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\ncd {folder}\nset -- *.json\ncat "$1"\nrm "$1"\n')
    program.chmod(0o700)
    return Kubectl(str(program), folder / "kubeconfig")


def test_a_crd_without_conditions_is_waited_for(tmp_path: Path) -> None:
    def crd(status: str) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": "Established", "status": status}]}}

    kubectl = answering(tmp_path, {}, {"status": {"conditions": None}}, crd("False"), crd("True"), crd("True"))
    kubectl.wait_established("things.example.com")
    assert [path.name for path in tmp_path.glob("*.json")] == ["4.json"], "it returned at the first True"
