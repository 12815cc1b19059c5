"""The watches: kopf's handlers, which only pass each event to the event handler.

kopf runs on its own event loop in its own thread. When `kopf.operator()` ends, it cancels every task of its loop that
is younger than itself (kopf 1.45, `run_tasks`). It also takes over the signals of the main thread. Neither must happen
to our workers and server. kopf ends on watch errors that client-go would retry (any code but 410, a 403 on a relist).
Then it is started again after a back-off; the cache stays.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf

from finetune_operator.api import names
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.kube.client import in_cluster
from finetune_operator.kube.contact import Contact
from finetune_operator.watch.filtered_session import EventFilterFor, session
from finetune_operator.watch.streams import Streams

logger = logging.getLogger(__name__)

_HEALTHY_SECONDS = 60.0
_ENDING_SECONDS = 10.0
_CLOSING_SECONDS = 0.25


class Watches:
    """The watches of FineTuneJobs, their Jobs and pods, and of profiles, in one namespace or in all.

    Args:
        event_handler: receives the events, on the event loop of `run`.
        on_restart: called before kopf starts again: events may have been missed.
        settings: makes kopf's settings for one run.
        memories: makes kopf's memories of objects for one run; None for kopf's own.
        backoffs: makes the back-offs before restarts, in seconds.
        event_filter_for: makes the filter for a kind; called on kopf's thread. By default nothing is filtered.
        namespace: the namespace to watch; None for all.
        cluster_profiles: whether ClusterFineTuneProfiles are watched.
        environment: decides where kopf finds its credentials.
        contact: what is told whether the API server can be reached; by default nobody is.
    """

    def __init__(
        self,
        event_handler: EventHandler,
        *,
        on_restart: Callable[[], None],
        settings: Callable[[], kopf.OperatorSettings],
        memories: Callable[[], Any] = lambda: None,
        backoffs: Callable[[], Iterator[float]],
        event_filter_for: EventFilterFor = lambda _: None,
        namespace: str | None,
        environment: Mapping[str, str],
        contact: Contact | None = None,
        cluster_profiles: bool = False,
    ) -> None:
        self._cluster_profiles = cluster_profiles
        self._event_handler = event_handler
        self._on_restart = on_restart
        self._settings = settings
        self._memories = memories
        self._backoffs = backoffs
        self._event_filter_for = event_filter_for
        self._namespaces = () if namespace is None else (namespace,)
        self._environment = environment
        self._contact = contact
        self.streams = Streams()
        """The watches that are open."""

    async def run(self) -> None:
        """Watches until cancelled. kopf's thread ends a few seconds later."""
        backoffs = self._backoffs()
        while True:
            started = time.monotonic()
            error = await self._run_kopf()
            if time.monotonic() - started > _HEALTHY_SECONDS:
                backoffs = self._backoffs()
            delay = next(backoffs)
            context = {"namespace": next(iter(self._namespaces), "*")}
            reason = error or "without an error"
            logger.warning("the watches ended: %s; restarting in %.0f s", reason, delay, extra=context)
            await asyncio.sleep(delay)
            self._on_restart()

    async def _run_kopf(self) -> BaseException | None:
        """Runs kopf once and returns the error that ended it, if any."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        kopf_loop = asyncio.new_event_loop()
        kopf_loop.set_exception_handler(_warn)
        stop = asyncio.Event()

        def report(error: BaseException | None) -> None:
            _call(loop, _set, ended, error)

        def live() -> None:
            try:
                with asyncio.Runner(loop_factory=lambda: kopf_loop) as runner:
                    runner.run(self._operate(loop, stop, report))
            except BaseException as error:  # noqa: BLE001 (any error means that the watches have ended)
                report(error)
            report(None)

        threading.Thread(target=live, name="kopf", daemon=True).start()
        try:
            return await ended
        finally:
            _call(kopf_loop, stop.set)

    async def _operate(
        self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, report: Callable[[BaseException | None], None]
    ) -> None:
        """Runs kopf as `kopf.operator()` does, but reports the end as soon as the first task ends.

        kopf's shutdown may hang: a request that fails then asks for new credentials, and waits for ever for a task that
        has ended already (seen with 1.45.2).
        """
        tasks = await kopf.spawn_tasks(
            registry=self._registry(loop),
            settings=self._settings(),
            memories=self._memories(),
            namespaces=self._namespaces,
            clusterwide=not self._namespaces,
            standalone=True,
            # The flag must belong to this loop. For a flag of another thread kopf blocks a thread of the loop's
            # executor, and a loop waits for its executor when it ends.
            stop_flag=stop,
        )
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        report(next((error for task in ended if not task.cancelled() and (error := task.exception())), None))
        with contextlib.suppress(Exception):  # it has been reported
            async with asyncio.timeout(_ENDING_SECONDS):
                await kopf.run_tasks(tasks)
        # TLS connections that kopf has closed need the loop a little longer, or their sockets leak.
        await asyncio.sleep(_CLOSING_SECONDS)

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        in_pod = in_cluster(self._environment)
        bridge = _Bridge(loop)

        logins: dict[kopf.ConnectionInfo, kopf.AiohttpSession] = {}

        @kopf.on.login(registry=registry)
        async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
            info = kopf.login_with_service_account(**kwargs) if in_pod else kopf.login_with_kubeconfig(**kwargs)
            if info is None:
                return None
            # One session per credentials: by the session kopf knows that these credentials were refused already.
            if info not in logins:
                logins.clear()
                logins[info] = session(info, self._event_filter_for, self._contact, self.streams)
            return logins[info]

        @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
        async def finetunejob(event: kopf.RawEvent, **_: Any) -> None:
            bridge.send(self._event_handler.finetunejob, event)

        @kopf.on.event(names.GROUP, names.VERSION, names.PROFILE_PLURAL, registry=registry)
        async def profile(event: kopf.RawEvent, **_: Any) -> None:
            bridge.send(self._event_handler.profile, event)

        if self._cluster_profiles:

            @kopf.on.event(names.GROUP, names.VERSION, names.CLUSTER_PROFILE_PLURAL, registry=registry)
            async def cluster_profile(event: kopf.RawEvent, **_: Any) -> None:
                bridge.send(self._event_handler.cluster_profile, event)

        @kopf.on.event("batch", "v1", "jobs", registry=registry)
        async def job(event: kopf.RawEvent, **_: Any) -> None:
            bridge.send(self._event_handler.job, event)

        @kopf.on.event("", "v1", "pods", registry=registry)
        async def pod(event: kopf.RawEvent, **_: Any) -> None:
            bridge.send(self._event_handler.pod, event)

        return registry


class _Bridge:
    """Passes events from kopf's thread to the event handler's loop, in order. One wake-up serves all waiting events.

    A wake-up sends a byte through a socket and switches threads. One for each event would cost more than the event.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[tuple[_Deliver, kopf.RawEvent]] = deque()
        self._awake = False

    def send(self, deliver: "_Deliver", event: kopf.RawEvent) -> None:
        """Called by kopf's thread."""
        self._events.append((deliver, event))
        if not self._awake:
            self._awake = True
            _call(self._loop, self._receive)

    def _receive(self) -> None:
        self._awake = False  # before the first event is taken: events from now on wake the loop again
        while self._events:
            deliver, event = self._events.popleft()
            deliver(event["type"], event["object"])


_Deliver = Callable[[str | None, Mapping[str, Any]], None]


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Calls a function on the loop of another thread, unless that loop has ended."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        logger.debug("an event arrived after the loop had ended")


def _warn(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs what nobody awaits. When kopf ends, its callbacks look for a task where there is none (1.45, api.stream)."""
    logger.warning("in kopf's loop: %s", context["message"], exc_info=context.get("exception"))


def _set(future: "asyncio.Future[BaseException | None]", value: BaseException | None) -> None:
    if not future.done():
        future.set_result(value)
