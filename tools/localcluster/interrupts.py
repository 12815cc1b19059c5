"""How a process that has started a cluster ends on a signal: as by Ctrl-C, so that the cluster is taken down."""

import signal


def interrupt_on_signals() -> None:
    """Makes SIGTERM and SIGINT raise KeyboardInterrupt; under `asyncio.run` they cancel the main task first.

    By default SIGTERM ends a process at once. And a shell without job control starts `COMMAND &` with SIGINT ignored,
    which Python keeps: then a SIGTERM that is passed on as SIGINT would be lost.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
