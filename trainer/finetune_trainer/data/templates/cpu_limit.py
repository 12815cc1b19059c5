"""A limit on the processor's time of one piece of work, in the process that does it.

A template that loops for ever, be it in the last row only, must not hold a GPU for ever. Its loops are Python's own
bytecode, between which Python runs signal handlers; so a timer ends them. It counts this process's time on a processor,
not the clock's: a machine that is busy with others makes nothing fail.

There are millions of renderings, of some microseconds each. So the timer is not set for each of them: it ticks every
second while there are any, and stops at the first tick that finds none.
"""

import os
import signal
import threading
from types import FrameType, TracebackType


class CpuTimeoutError(Exception):
    """The work has taken longer than it may."""


class _Ticker:
    """The process's timer.

    Attributes:
        working: whether something with a limit is being done.
        left: ticks until it is ended.
    """

    def __init__(self) -> None:
        self.working = False
        self.left = 0
        self._ticks = False

    def start(self) -> None:
        if not self._ticks:
            signal.signal(signal.SIGVTALRM, self._tick)
            signal.siginterrupt(signal.SIGVTALRM, False)  # noqa: FBT003 (positional only)
            signal.setitimer(signal.ITIMER_VIRTUAL, 1, 1)
            self._ticks = True

    def forget(self) -> None:
        """A forked process has no timer."""
        self.working = self._ticks = False

    def _tick(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's)
        if not self.working:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._ticks = False
            return
        self.left -= 1
        if self.left < 0:
            raise CpuTimeoutError


_ticker = _Ticker()
os.register_at_fork(after_in_child=_ticker.forget)
_MAIN = threading.main_thread().ident


class CpuLimit:
    """Ends what runs inside with `CpuTimeoutError` after so many seconds of this process's processor time, or one more.

    Only the main thread is ever interrupted by a signal: in another one there is no limit. Nor is there one inside of
    another limit, which goes on.
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
