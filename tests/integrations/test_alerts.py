"""Every alert fires when its fault is in the series, and not before: promtool's own unit tests."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.programs import Programs

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/finetune-operator/files/alerts.yaml"
Case = Mapping[str, Any]
CASES: list[Case] = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())


class Promtool:
    """promtool with the alerts that are shipped."""

    def __init__(self, programs: Programs, folder: Path) -> None:
        self._programs = programs
        self._folder = folder

    def expects(
        self, case: Case, series: Mapping[str, str], alerts: list[dict[str, Any]], *, texts: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Whether exactly these alerts fire with the series. Without `texts` the rules have no annotations."""
        rules = yaml.safe_load(RULES.read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule["annotations"] = rule["annotations"] if texts else {}
        (self._folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": case["at"], "alertname": case["alert"], "exp_alerts": alerts}],
        }
        whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
        (self._folder / "test.yaml").write_text(yaml.safe_dump(whole))
        return self._programs.tool("test", "rules", self._folder / "test.yaml")


@pytest.fixture
def promtool(prometheus_programs: Programs, tmp_path: Path) -> Promtool:
    return Promtool(prometheus_programs, tmp_path)


def test_promtool_accepts_the_rules(prometheus_programs: Programs) -> None:
    done = prometheus_programs.tool("check", "rules", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert {case["alert"] for case in CASES} == alerts


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['alert']}: {case['fault']}")
def test_the_alert_fires_with_its_fault_and_not_without(case: Case, promtool: Promtool) -> None:
    fires = promtool.expects(case, case["series"], [{"exp_labels": case["labels"]}], texts=False)
    assert fires.returncode == 0, fires.stdout + fires.stderr
    healthy = promtool.expects(case, case["healthy"], [], texts=False)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['alert']}: {case['fault']}")
def test_the_texts_of_an_alert_can_be_filled(case: Case, promtool: Promtool) -> None:
    done = promtool.expects(case, case["series"], [])  # none is expected, so promtool shows the one that fires
    shown = done.stdout + done.stderr
    assert 'summary="' in shown, shown
    assert "error expanding template" not in shown, shown
