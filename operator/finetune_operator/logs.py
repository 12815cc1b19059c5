"""Logs: one JSON object per line, for log collectors. A traceback is a field, never lines of its own.

JSON escapes some control characters, but not those of C1 and of writing direction. So every text is made readable.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from finetune_trainer.contract.text import readable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update(
            (key, value)
            for key, value in vars(record).items()
            if key not in _STANDARD and isinstance(value, str | int | float | bool)
        )
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        cleaned = {key: readable(value) if isinstance(value, str) else value for key, value in fields.items()}
        return json.dumps(cleaned, ensure_ascii=False)


_NO_CONNECTION = ("ClientConnector", "ConnectionTimeoutError")


class ExpectedByWatches(logging.Filter):
    """Makes kopf's errors about its requests and watches warnings: the watches are started again, and say so.

    What it says about each request that gets no connection is left out: `kube.contact` says it once.

    An error is what somebody must look at. An API server that is away for a moment, or a token that has expired, is
    none. What kopf says about an event that it could not handle stays an error.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; it has its level afterwards."""
        if record.name.startswith("kopf.") and any(name in record.getMessage() for name in _NO_CONNECTION):
            return False
        handling = record.name == "kopf._core.reactor.queueing"
        if record.levelno == logging.ERROR and record.name.startswith("kopf.") and not handling:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Makes every logger of the process write JSON lines to the stream.

    kopf, aiohttp and asyncio log only from WARNING on: their INFO is of no use here, and kopf's DEBUG prints whole
    objects.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(ExpectedByWatches())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns at each start that it does not handle signals. It must not: our process does.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
