"""The process's log: one short line per event, `time level event key=value …`, on standard error.

Logs and warnings of other packages are left out. Users read this log when something is wrong. Deprecation warnings that
users cannot act on would hide the important line.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TextIO

from finetune_trainer.contract.text import printable, readable

_NAME = "finetune"
_LEVELS = {logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}

# The libraries read these variables when they are imported, so they must be set before. TRL sends a request for each
# trainer unless telemetry is off (trl:trainer/base_trainer.py).
_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # The client sets its logger up, with its own handler, when it is imported.
    "HF_HUB_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # No code of the Hub in the place of transformers' own layers, where the package `kernels` is installed.
    "USE_HUB_KERNELS": "NO",
    "BITSANDBYTES_NOWELCOME": "1",
    # transformers' callback would post its own reports beside those of this trainer, which contain more.
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
}


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Logs one event with its fields in the given order. Fields that are None are left out."""
    shown = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
    logging.getLogger(_NAME).log(level, "%s", f"{name} {shown}".rstrip())


def set_up(stream: TextIO | None = None, *, rank: int = 0, level: int = logging.INFO) -> None:
    """Sets up the process's log and silences the logs of all other packages. Only the main program calls it.

    Of several processes that train together, only rank 0 logs at `level`. The others log warnings and errors, with
    their rank.

    Args:
        stream: the output; None means standard error.
        rank: rank of the process.
        level: lowest level that is logged.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(rank))
    own = logging.getLogger(_NAME)
    own.handlers[:] = [handler]
    own.setLevel(max(level, logging.WARNING) if rank else level)
    own.propagate = False
    logging.getLogger().handlers[:] = [logging.NullHandler()]


_LIBRARIES = ("accelerate", "bitsandbytes", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl")


def quieten(environment: MutableMapping[str, str] = os.environ) -> None:
    """Silences the training libraries and turns their telemetry off. Call it before the first import of one."""
    environment.update(_ENVIRONMENT)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


def go_offline(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the Hub's client send no further request. Call it when the base model is on the disk.

    transformers asks the Hub about a model in a local folder too, for its tokenizer and its adapter. The client reads
    HF_HUB_OFFLINE when it is imported. It is imported already when the model came from the Hub, so its constant is set
    as well.
    """
    environment["HF_HUB_OFFLINE"] = "1"
    if (hub := sys.modules.get("huggingface_hub")) is not None:
        hub.constants.HF_HUB_OFFLINE = True


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Silences the training libraries and their warnings, which users cannot act on.

    Warnings about code of this package or of a caller are shown.
    """
    quieten()
    with warnings.catch_warnings():
        for name in _LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        # torch's word about a driver that is too old or a GPU that does not answer: the user can act on it.
        warnings.filterwarnings("default", message="CUDA initialization")
        yield


class _Formatter(logging.Formatter):
    """Formats a record as `2026-01-31T12:00:00Z info event key=value`, followed by the traceback if there is one."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._suffix = f" rank={rank}" if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = f"{when} {_LEVELS.get(record.levelno, record.levelname.lower())} {record.getMessage()}{self._suffix}"
        # A traceback quotes what a library says of somebody's file.
        return readable(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


def failure(name: str, error: BaseException) -> None:
    """Logs an event with the traceback of `error`. Nothing else logs a traceback."""
    logging.getLogger(_NAME).error("%s", name, exc_info=error)


def _shown(value: object) -> str:
    """Returns a value as text, without line breaks and control characters. A text with blanks gets quotes."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = printable(text.replace("\n", " | "))
    return f'"{text}"' if " " in text else text
