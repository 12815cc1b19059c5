"""A running Prometheus that scrapes one target every second, and its HTTP API."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from prometheus.programs import Programs

_TIMEOUT = 10.0


class Server:
    """A Prometheus on loopback."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_TIMEOUT) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an instant query.

        Raises:
            urllib.error.HTTPError: the expression is not valid.
        """
        query = urllib.parse.urlencode({"query": expression})
        answer = self._get(f"/api/v1/query?{query}")
        return [(item["metric"], float(item["value"][1])) for item in answer["result"]]

    def value(self, expression: str) -> float | None:
        """The value of a query with one result; None if it has none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {
            alert["labels"]["alertname"]
            for alert in self._get("/api/v1/alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def target(self) -> Mapping[str, Any]:
        """The scraped target: its health and its last error."""
        [target] = self._get("/api/v1/targets")["activeTargets"]
        return dict(target)

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=_TIMEOUT) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data


@contextmanager
def running(
    programs: Programs, folder: Path, *, port: int, scrape: Mapping[str, Any], rules: Mapping[str, Any]
) -> Iterator[Server]:
    """Starts Prometheus, and ends it with the block.

    Args:
        programs: the programs.
        folder: for its files and its log.
        port: where it listens on loopback.
        scrape: the scrape configuration of the target, without job_name.
        rules: a rule file.
    """
    rule_file, config = folder / "rules.yaml", folder / "prometheus.yaml"
    rule_file.write_text(yaml.safe_dump(dict(rules)))
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(rule_file)],
                "scrape_configs": [{"job_name": "finetune-operator", **scrape}],
            }
        )
    )
    command: list[str | Path] = [programs.prometheus, f"--config.file={config}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield Server(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(timeout=30)
