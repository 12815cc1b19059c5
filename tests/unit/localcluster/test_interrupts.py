"""A process that has started a cluster takes it down when it is ended, however it was started."""

import signal
import subprocess
import sys

import pytest

from localcluster import interrupts

PROGRAM = f"""
import asyncio, sys
sys.path.insert(0, {str(interrupts.__file__).rpartition("/localcluster/")[0]!r})
from localcluster.interrupts import interrupt_on_signals

async def work():
    try:
        print("up", flush=True)
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0)
        print("down", flush=True)

interrupt_on_signals()
try:
    asyncio.run(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("shell", ["exec", "trap '' INT; exec"], ids=["by itself", "in the background of a script"])
def test_it_is_taken_down(number: signal.Signals, shell: str) -> None:
    command = ["sh", "-c", f'{shell} "$0" -c "$1"', sys.executable, PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.communicate()[0] == "down\ninterrupted\n"
