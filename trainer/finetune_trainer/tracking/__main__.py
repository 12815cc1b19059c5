"""The tracker's process: reads messages from its standard input, writes what the log should say to its output."""

import json
import os
import sys
import time

from finetune_trainer.tracking.clients import client_of
from finetune_trainer.tracking.messages import Begin, End, Metrics, from_line
from finetune_trainer.tracking.sender import Sender


def main() -> None:
    """Runs until the end of the training, or of the trainer."""
    # The trackers' clients print. Only lines of ours may reach the trainer.
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(message: str, *, warning: bool = False) -> None:
        lines.write(json.dumps({"message": message, "warning": warning}) + "\n")
        lines.flush()

    sender: Sender | None = None
    for line in sys.stdin:
        message = from_line(line)
        if isinstance(message, Begin):
            sender = Sender(client_of(message.tracker), message, time.monotonic, say)
            sender.send()
        assert sender is not None, "the first message is the run"
        if isinstance(message, Metrics):
            sender.add(message)
        if isinstance(message, End):
            sender.end(message.status)
            break


if __name__ == "__main__":
    main()
    # Threads of a client that still wait for a server must not hold the process.
    sys.stdout.flush()
    os._exit(0)
