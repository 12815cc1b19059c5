"""The process's log: one short line an event, `time level event key=value …`, on standard error.

Logs and warnings of other packages are kept out. Users read this log when something is wrong, and deprecation notices
that they cannot act on would hide the line that matters.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TextIO

from finetune_trainer.contract.text import printable

_NAME = "finetune"
_LEVELS = {logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error"}

# What the libraries read when they are imported, hence before. TRL sends a ping per trainer unless telemetry is off
# (trl:trainer/base_trainer.py).
_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # The client sets its logger up when it is imported, with a handler of its own.
    "HF_HUB_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "BITSANDBYTES_NOWELCOME": "1",
    # The reports of this trainer carry more than those of transformers' callback, which would compete with them.
    "DISABLE_KUBEFLOW_INTEGRATION": "TRUE",
}


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Logs one event with its fields, in the order given; absent (None) ones are left out."""
    shown = " ".join(f"{key}={_shown(value)}" for key, value in fields.items() if value is not None)
    logging.getLogger(_NAME).log(level, "%s", f"{name} {shown}".rstrip())


def set_up(stream: TextIO | None = None, *, rank: int = 0, level: int = logging.INFO) -> None:
    """Sets the process's log up and silences the others'; for a process of its own, not for a library's user.

    Of several processes that train together only the first tells what happens; the others warn, with their number.
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
    """Keeps the training libraries quiet and from telemetry; call before the first of them is imported."""
    environment.update(_ENVIRONMENT)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)


def go_offline(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keeps the Hub's client from the network; call once the base model is on the disk.

    transformers asks the Hub about models that lie in a local folder too (which tokenizer, which adapter). The client
    reads the variable when it is imported, which may have happened to fetch the model.
    """
    environment["HF_HUB_OFFLINE"] = "1"
    if (hub := sys.modules.get("huggingface_hub")) is not None:
        hub.constants.HF_HUB_OFFLINE = True


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Keeps the training libraries quiet, their warnings too, which users cannot act on.

    Warnings that point at this package or at a caller's code pass.
    """
    quieten()
    with warnings.catch_warnings():
        for name in _LIBRARIES:
            warnings.filterwarnings("ignore", module=rf"{name}(\.|$)")
        yield


class _Formatter(logging.Formatter):
    """`2026-01-31T12:00:00Z info event key=value`, with a traceback below where there is one."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._suffix = f" rank={rank}" if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = f"{when} {_LEVELS.get(record.levelno, record.levelname.lower())} {record.getMessage()}{self._suffix}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def failure(name: str, error: BaseException) -> None:
    """Logs an event with the traceback of `error`: the one place where a traceback may stand."""
    logging.getLogger(_NAME).error("%s", name, exc_info=error)


def _shown(value: object) -> str:
    """A value without line breaks and other control characters, in quotes where it holds blanks."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = printable(text.replace("\n", " | "))
    return f'"{text}"' if " " in text else text
