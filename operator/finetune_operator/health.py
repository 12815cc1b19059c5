"""Liveness and readiness probes, on the same port as progress reports.

A liveness problem is one that only a restart solves: a worker hangs, or no resync succeeds although the API server
answers. If the API server is down, a restart does not help: the replica is not ready. Leader and standby are both
ready, because both take reports.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

STUCK_SECONDS = 300.0
SILENT_SECONDS = 30.0
RESYNCS_MISSED = 3


class Health:
    """The health of this replica, for the kubelet's probes.

    Args:
        stuck_seconds: seconds without progress of the work queue.
        last_contact: when the API server last answered a request for the Lease; None if never.
        leading_since: when this replica became the leader; None if it is not.
        last_resync: when a resync last succeeded; None if none has.
        resync_seconds: seconds between two resyncs.
        failing: the namespaces that cannot be listed now, each with its error.
        clock: seconds, monotonic; of all these times.
    """

    def __init__(
        self,
        *,
        stuck_seconds: Callable[[], float],
        last_contact: Callable[[], float | None],
        leading_since: Callable[[], float | None],
        last_resync: Callable[[], float | None],
        resync_seconds: float,
        failing: Callable[[], Mapping[str, str]] = dict,
        clock: Callable[[], float],
    ) -> None:
        self._stuck_seconds = stuck_seconds
        self._last_contact = last_contact
        self._leading_since = leading_since
        self._last_resync = last_resync
        self._resync_limit = max(STUCK_SECONDS, RESYNCS_MISSED * resync_seconds)
        self._failing = failing
        self._clock = clock

    def liveness_problem(self) -> str | None:
        """Why this replica must be restarted; None if it need not."""
        leading_since = self._leading_since()
        if leading_since is None:
            return None  # a standby has no workers
        stuck = min(self._stuck_seconds(), self._clock() - leading_since)
        if stuck > STUCK_SECONDS:
            return f"the work queue has made no progress for {stuck:.0f} s"
        if self.readiness_problem() is None:
            waiting = self._clock() - max(leading_since, self._last_resync() or leading_since)
            if waiting > self._resync_limit:
                return f"no resync has succeeded for {waiting:.0f} s, although the API server answers"
        return None

    def readiness_problem(self) -> str | None:
        """Why this replica is not ready; None if it is."""
        last = self._last_contact()
        if last is None:
            return "the API server has not answered yet"
        silent = self._clock() - last
        return f"the API server has not answered for {silent:.0f} s" if silent > SILENT_SECONDS else None

    def add_to(self, application: web.Application) -> None:
        """Adds `/healthz` and `/readyz`."""
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self.liveness_problem())

    async def _readyz(self, _: web.Request) -> web.Response:
        answer = _answer(self.readiness_problem())
        # The replica stays ready when one namespace fails: it still takes reports of the others.
        failing = "".join(f"\nnamespace {name}: {error}" for name, error in sorted(self._failing().items()))
        answer.text = f"{answer.text}{failing}"
        return answer


def _answer(problem: str | None) -> web.Response:
    return web.Response(text="ok" if problem is None else problem, status=200 if problem is None else 503)
