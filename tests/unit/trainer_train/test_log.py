"""The log's lines, and what is kept out of the libraries."""

import io
import logging
import subprocess
import sys
import warnings

import pytest

from finetune_trainer.runtime import log


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_event_is_one_line_with_its_fields_in_order(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.set_up(stream)

    log.event("step", step="1/8", loss=0.123456789, absent=None, note="two\nlines\x1b[2J\r", level=logging.WARNING)

    time, rest = stream.getvalue().rstrip("\n").split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'warn step step=1/8 loss=0.123457 note="two | lines\\x1b[2J\\r"'


def test_a_traceback_is_readable(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.set_up(stream)

    log.failure("crashed", ValueError("\x1b[2J\u202e"))

    assert stream.getvalue().endswith("error crashed\nValueError: \\x1b[2J\\u202e\n")


def test_environment_of_the_libraries_is_quiet_but_can_still_fetch() -> None:
    environment = {"HF_HUB_DISABLE_TELEMETRY": "0"}

    log.quieten(environment)

    assert environment["HF_HUB_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "1"
    assert environment["DISABLE_KUBEFLOW_INTEGRATION"] == "TRUE", "transformers would report beside this trainer"
    assert "HF_HUB_OFFLINE" not in environment


@pytest.mark.extras  # huggingface_hub
def test_client_that_has_fetched_goes_offline_too() -> None:
    program = (
        "import os\n"
        "os.environ.pop('HF_HUB_OFFLINE', None)\n"
        "import huggingface_hub\n"
        "from finetune_trainer.runtime.log import go_offline\n"
        "before = huggingface_hub.is_offline_mode()\n"
        "go_offline()\n"
        "print(before, huggingface_hub.is_offline_mode(), os.environ['HF_HUB_OFFLINE'])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True", "1"]


def test_warnings_of_libraries_are_dropped_and_others_pass() -> None:
    with log.libraries_quiet():
        warnings.warn_explicit("theirs", FutureWarning, "file.py", 1, module="transformers.training_args")
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn_explicit("ours", UserWarning, "file.py", 1, module="finetune_trainer.train.run")
