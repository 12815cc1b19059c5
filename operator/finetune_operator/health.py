"""Liveness and readiness, over the same port as progress reports.

Liveness is about what only a restart can heal: a worker that hangs, a resync that does not succeed though the API
server answers. An API server that is down is no reason to restart; it makes the replica unready. Leader and standby are
both ready: either takes reports.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

STUCK_SECONDS = 300.0
SILENT_SECONDS = 30.0
RESYNCS_MISSED = 3


class Health:
    """The state of this replica, asked by the kubelet.

    Args:
        stuck_seconds: how long the queue has stood still.
        last_contact: when the API server last answered the Lease; None if never.
        leading_since: since when this replica leads; None if it does not.
        last_resync: when the last resync succeeded; None if none did.
        resync_seconds: between two resyncs.
        failing: the namespaces that cannot be listed now, and why.
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
        """Why this replica should be restarted; None when it is well."""
        leading_since = self._leading_since()
        if leading_since is None:
            return None  # a standby's queue is nobody's
        stuck = min(self._stuck_seconds(), self._clock() - leading_since)
        if stuck > STUCK_SECONDS:
            return f"the queue has stood still for {stuck:.0f} s"
        if self.readiness_problem() is None:
            waiting = self._clock() - max(leading_since, self._last_resync() or leading_since)
            if waiting > self._resync_limit:
                return f"no resync has succeeded for {waiting:.0f} s, though the API server answers"
        return None

    def readiness_problem(self) -> str | None:
        """Why this replica can do nothing now; None when it can."""
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
        # One namespace that was deleted is no reason to take the others' reports away: it is told, and nothing more.
        failing = "".join(f"\nnamespace {name}: {error}" for name, error in sorted(self._failing().items()))
        answer.text = f"{answer.text}{failing}"
        return answer


def _answer(problem: str | None) -> web.Response:
    return web.Response(text="ok" if problem is None else problem, status=200 if problem is None else 503)
