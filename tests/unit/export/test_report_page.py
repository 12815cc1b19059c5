"""The report is one page that needs nothing else, and hostile rows stay text in it."""

import base64
import hashlib
from html.parser import HTMLParser

import pytest

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.text import CONTROL
from finetune_trainer.export.facts import Sample
from finetune_trainer.export.record import write_record
from finetune_trainer.export.report_page import duration, report_page
from unit.export.runs import facts

HOSTILE = """</pre></script><script>alert(1)</script><img src=http://x.example/y onerror='a()'>"&\u202e\x00"""
_REFERRING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href", "style"}
_VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, the text under each kind, and whether all of them are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def test_page_asks_for_nothing_and_runs_its_own_script_only() -> None:
    page = Page(report_page(facts(samples=[Sample(prompt="p", base="b", tuned="t")])))

    assert page.open == []
    assert not [
        item for tag, attributes in page.elements for item in attributes if item in _REFERRING or item[:2] == "on"
    ]
    (policy,) = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    (script,) = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    assert not [text for text in page.texts["style"] if "url(" in text or "@import" in text]


def test_hostile_rows_stay_text() -> None:
    plain = Page(report_page(facts(samples=[Sample(prompt="p", base="b", tuned="t")])))
    changed = {
        "samples": [Sample(prompt=HOSTILE, base=HOSTILE, tuned=HOSTILE)],
        "dataset": [SourceObject(uri=HOSTILE, size=1, etag=HOSTILE)],
        "versions": {HOSTILE: HOSTILE},
        "target_modules": [HOSTILE],
        "device": HOSTILE,
        "fingerprint": HOSTILE,
    }

    shown = report_page(facts(**changed))
    page = Page(shown)

    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements], "no element more"
    assert page.texts["pre"] == [HOSTILE.replace("\u202e\x00", r"\u202e\x00")] * 3
    assert not CONTROL.search(shown.replace("\n", ""))
    assert len(page.texts["script"]) == 1


def test_figures_curves_settings_and_warnings_are_there() -> None:
    page = Page(report_page(facts(recipe={"training": {"learningRate": "3e-4"}})))

    titles = [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"]
    assert titles == ["Loss (nats per token)", "Learning rate", "Gradient norm", "Tokens per second", "Rows by length"]
    cells = page.texts["td"]
    assert cells[cells.index("training.learningRate") + 1] == "3e-4"
    assert cells[cells.index("Training") + 1] == "3 min 20 s"
    assert "1,234 bytes, abc" in cells
    assert {"3.00 GiB", "500", "90"} <= set(page.texts["b"])
    assert any("7 of 100 rows" in text for text in page.texts["p"])
    assert "Samples" not in page.texts["h2"]


def test_run_without_a_log_has_a_page_too() -> None:
    page = Page(report_page(facts(history=[], metrics={})))

    assert [attributes["aria-label"] for tag, attributes in page.elements if tag == "svg"] == ["Rows by length"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.24, "4.2 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (7530, "2 h 5 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_record_is_written_whatever_the_text(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    write_record(facts(samples=[Sample(prompt="\ud800", base="é", tuned="")]), folder)

    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["README.md", "loss.svg", "report.html",
                     "runs/support-bot-1/events.out.tfevents.1795521600.0123456789ab.0"]  # fmt: skip
    assert r">\ud800</pre>" in (folder / "report.html").read_text(encoding="utf-8")
