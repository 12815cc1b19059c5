"""Alerts, dashboard and documentation: they name metrics that exist, with labels that these have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from finetune_operator.metrics import catalog
from finetune_operator.metrics.catalog import ALL, Kind
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.metrics.jobs import JobCollector
from finetune_operator.metrics.process import ProcessCollector, QueueState, WatchState
from finetune_operator.metrics.reference import with_reference

pytestmark = pytest.mark.extras

ROOT = Path(__file__).parents[3]
FILES = ROOT / "helm/finetune-operator/files"
ALERTS = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
_PYTHON = ("process_", "python_")


def panels() -> Iterator[str]:
    for panel in json.loads((FILES / "dashboard.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def everything() -> CollectorRegistry:
    registry = CollectorRegistry()
    Instruments(registry)
    queue = QueueState(depth=0, running=())
    watches = {"*": WatchState(watching=True, last_resync=0.0)}
    jobs = JobCollector(list, per_job=True)
    process = ProcessCollector(lease_name="x", leading=lambda: True, queue=lambda: queue, watches=lambda: watches)
    for collector in (jobs, process):
        registry.register(collector)
        collector.take()
    return registry


def test_what_is_served_is_the_catalogue_and_nothing_is_missing() -> None:
    served = {(family.name, family.type, family.documentation) for family in everything().collect()}
    assert served == {(metric.name.removesuffix("_total"), str(metric.kind), metric.help) for metric in ALL}


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: catalog.Metric) -> None:
    assert re.fullmatch("(finetune|workqueue|rest_client|leader_election)_[a-z_]+[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert metric.help.endswith(".")
    assert "job" not in metric.labels, "it is Prometheus' own"


def _uses(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric of an expression, with the labels that its selector names."""
    for name, selector in re.findall(r"\b([a-z_]+_[a-z_]+)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', expression)):
        if name.startswith(("finetune_", "workqueue_", "rest_client_", "leader_election_", *_PYTHON)):
            yield name, set(re.findall(r"([a-z_]+)(?:=|!)", selector))


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in ALERTS), *panels()])
def test_alerts_and_panels_use_metrics_and_labels_that_exist(expression: str) -> None:
    known = {metric.name: metric for metric in ALL}
    uses = list(_uses(expression))
    assert uses
    for name, labels in uses:
        if not name.startswith(_PYTHON):
            metric = known[re.sub("_(bucket|count|sum)$", "", name) if name not in known else name]
            assert labels <= set(metric.labels), name


def test_every_alert_is_documented_with_its_severity() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    rows = dict(re.findall(r"^\| `(Finetune\w+)` \|.*\| (\w+) \|$", page, re.MULTILINE))
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS}


def test_the_page_has_every_metric() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    assert with_reference(page) == page
    for metric in ALL:
        assert f"| `{metric.name}` | {metric.kind} |" in page


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_reference("# Metrics\n")
