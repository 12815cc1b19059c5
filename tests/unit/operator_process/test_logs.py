"""Logs as JSON lines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from finetune_operator import logs
from finetune_trainer.contract.text import CONTROL

ESCAPES, SHOWN = "\x1b[2J\x9b\u202e\u2028", r"\x1b[2J\x9b\u202e\u2028"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_record_is_one_line_with_its_fields_and_traceback() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream)
    logger = logging.getLogger("finetune_operator.test")
    logger.debug("not this")
    logger.info("a %s", "message\nof two lines", extra={"job": "team/a", "object": object()})
    try:
        int("boom")
    except ValueError:
        logger.exception("failed")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["a message\nof two lines", "failed"]
    assert lines[0]["job"] == "team/a"
    assert "object" not in lines[0]
    assert "ValueError: invalid literal" in lines[1]["traceback"]


def test_kopf_logs_only_warnings() -> None:
    stream = io.StringIO()
    logs.configure("DEBUG", stream)
    logging.getLogger("kopf.objects").info("Handler 'x' succeeded.")
    assert stream.getvalue() == ""


def test_texts_of_others_are_readable() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream)
    try:
        int(ESCAPES)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("of a %s", ESCAPES, extra={"reason": ESCAPES})
    line = json.loads(stream.getvalue())
    assert line["message"] == rf"of a {SHOWN}"
    assert line["reason"] == SHOWN
    assert "ValueError: invalid literal" in line["traceback"]
    assert not CONTROL.search(stream.getvalue().rstrip("\n"))


def test_what_kopf_says_of_its_watches_is_a_warning_and_of_an_event_an_error() -> None:
    stream = io.StringIO()
    logs.configure("INFO", stream)
    logging.getLogger("kopf._core.reactor.orchestration").error("Watcher for pods has failed")
    logging.getLogger("kopf._core.reactor.queueing").error("Event processing has failed")
    logging.getLogger("finetune_operator.test").error("unexpected")
    levels = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert levels == ["WARNING", "ERROR", "ERROR"]
