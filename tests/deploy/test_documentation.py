"""What the pages say can be done: links lead somewhere, FineTuneJobs are valid, commands name what is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api.job import parse_spec

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, text in TEXTS.items():
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found += [(name, item) for item in yaml.safe_load_all(block) if item and item.get("kind") == "FineTuneJob"]
    return found


def headings(text: str) -> set[str]:
    """The anchors that a page's headings have, by the rule of Git hosts."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in headings(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_every_job_is_valid() -> None:
    found = jobs()
    assert {name for name, _ in found} >= {"README.md"}
    for _, job in found:
        parse_spec(job["spec"])


def test_every_field_without_behaviour_is_in_the_readme() -> None:
    code = (ROOT / "operator/finetune_operator/reconcile/refusal.py").read_text(encoding="utf-8")
    fields = set(re.findall(r'"spec\.([\w.]+): [^"]* not there', code))
    assert "scheduling.queueName" in fields
    for field in fields:
        section = field.partition(".")[0]
        assert f"`{field}" in TEXTS["README.md"] or f"`{section}`" in TEXTS["README.md"], field


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in TEXTS.items():
        named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= targets, name
