"""A limit on the processor time of a block of code, enforced in its own process.

A template with an endless loop, even if only in the last row, must not hold a GPU for ever. Jinja compiles a template
to Python bytecode, and Python runs signal handlers between bytecodes, so a timer signal can end the loop. The timer
counts this process's processor time and not wall time: on a busy machine nothing fails.

There are millions of renderings, of some microseconds each, so the timer is not set for each of them. It ticks once a
second while renderings run, and stops at the first tick outside a rendering.
"""

import atexit
import os
import signal
import threading
from types import FrameType, TracebackType


class CpuTimeoutError(Exception):
    """The block has used more processor time than its limit."""


class _Ticker:
    """The process's timer.

    Attributes:
        working: whether a block with a limit is running.
        left: ticks until the block is ended.
    """

    def __init__(self) -> None:
        self.working = False
        self.left = 0
        self._ticks = False

    def start(self) -> None:
        if not self._ticks:
            signal.signal(signal.SIGVTALRM, self._tick)
            signal.siginterrupt(signal.SIGVTALRM, False)  # noqa: FBT003 (positional only)
            # At its end Python takes the handlers away, and goes on for a while. A tick would then end the process.
            atexit.unregister(self._stop)
            atexit.register(self._stop)
            signal.setitimer(signal.ITIMER_VIRTUAL, 1, 1)
            self._ticks = True

    def forget(self) -> None:
        """Resets the state in a forked process, which does not inherit the timer."""
        self.working = self._ticks = False

    def _tick(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's)
        if not self.working:
            self._stop()
            return
        self.left -= 1
        if self.left < 0:
            raise CpuTimeoutError

    def _stop(self) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self._ticks = False


_ticker = _Ticker()
os.register_at_fork(after_in_child=_ticker.forget)
_MAIN = threading.main_thread().ident


class CpuLimit:
    """A context manager that limits the processor time of its block.

    Python runs signal handlers only in the main thread, so in another thread there is no limit. A limit inside another
    limit has no effect.

    Args:
        seconds: seconds of this process's processor time. The block may take up to one second more.

    Raises:
        CpuTimeoutError: inside the block, the limit is exceeded.
    """

    __slots__ = ("_mine", "_seconds")

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._mine = False

    def __enter__(self) -> None:
        if _ticker.working or threading.get_ident() != _MAIN:
            return
        _ticker.left = self._seconds
        _ticker.working = self._mine = True
        _ticker.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._mine:
            _ticker.working = self._mine = False
