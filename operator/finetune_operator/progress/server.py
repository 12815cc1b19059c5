"""The HTTP server for reports: `POST /v1/jobs/NAMESPACE/NAME/UID/progress` with a bearer token.

The body is a `ProgressReport`, as transformers' KubeflowCallback sends it. Answers: 200 accepted; 400 invalid body; 401
no valid token; 403 a token for another job or pod; 404 no such job; 408 the body arrives too slowly; 409 an earlier
attempt; 410 the job has ended; 413 more than 64 KiB; 429 too many requests; 503 try again later.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.progress.auth import Authenticator, Denied, TooManyReviews, Unauthenticated, UnknownJob
from finetune_operator.progress.coalescer import Report
from finetune_operator.progress.ports import Cluster, Unavailable
from finetune_operator.progress.ratelimit import Rate, RateLimit
from finetune_operator.progress.writer import ProgressWriter
from finetune_trainer.contract.progress import ProgressReport

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
READ_SECONDS = 10.0
RETRY_AFTER_SECONDS = 5
REPORTS_OF_JOB = Rate(per_second=2, burst=20)
MAX_CLOCK_SKEW = timedelta(minutes=5)
_BEARER = "bearer "
_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class ProgressServer:
    """The handler of reports.

    Args:
        cluster: knows jobs, pods and tokens.
        writer: writes accepted records to the status.
        own_token: reads the operator's own token; None outside of a cluster.
        clock: seconds, monotonic.
        now: the current time, with a time zone.
        on_answer: is told the HTTP status of each answer, for metrics.
    """

    def __init__(
        self,
        cluster: Cluster,
        writer: ProgressWriter,
        *,
        own_token: Callable[[], str | None],
        clock: Callable[[], float],
        now: Callable[[], datetime],
        on_answer: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._on_answer = on_answer
        self._cluster = cluster
        self._writer = writer
        self._authenticator = Authenticator(cluster, own_token=own_token, clock=clock, now=now)
        self._limit = RateLimit(REPORTS_OF_JOB, clock=clock)
        self._now = now

    def add_to(self, application: web.Application) -> None:
        """Adds the route. It matches only parts that can be a Kubernetes name and UID; other paths get 404."""
        application.router.add_post(
            f"/v1/jobs/{{namespace:{_LABEL}}}/{{name:{_LABEL}}}/{{uid:{_UUID}}}/progress", self.report
        )

    async def report(self, request: web.Request) -> web.Response:
        """Handles one report."""
        path = request.match_info
        answer = await self._respond(
            request, FineTuneJobRef(namespace=path["namespace"], name=path["name"], uid=path["uid"])
        )
        self._on_answer(answer.status)
        return answer

    async def _respond(self, request: web.Request, ref: FineTuneJobRef) -> web.Response:
        try:
            return await self._report(request, ref)
        except Unauthenticated as error:
            return _answer(401, str(error), {"WWW-Authenticate": "Bearer"})
        except Denied as error:
            return _answer(403, str(error))
        except UnknownJob as error:
            return _answer(404, str(error))
        except TooManyReviews as error:
            return _answer(429, str(error), {"Retry-After": str(int(error.retry_after) + 1)})
        except Unavailable as error:
            context = {"job": f"{ref.namespace}/{ref.name}"}
            logger.log(error.level, "report answered with 503: %s", error, extra=context)
            return _answer(503, "the API server does not answer now", {"Retry-After": str(RETRY_AFTER_SECONDS)})

    async def _report(self, request: web.Request, ref: FineTuneJobRef) -> web.Response:
        header = request.headers.get("Authorization", "")
        if not header.lower().startswith(_BEARER):
            raise Unauthenticated("send the pod's projected token as `Authorization: Bearer TOKEN`")
        if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
            return _answer(413, f"a report has at most {MAX_BODY_BYTES} bytes")
        token = header[len(_BEARER) :].strip()
        reporter = await self._authenticator.authenticate(token, ref, peer=request.remote or "")
        if (wait := self._limit.seconds_to_wait(ref.uid)) > 0:
            return _answer(429, "this job reports too often", {"Retry-After": str(int(wait) + 1)})
        try:
            async with asyncio.timeout(READ_SECONDS):
                await request.content.readexactly(MAX_BODY_BYTES + 1)
        except asyncio.IncompleteReadError as end:  # the usual case: the body is shorter than the limit
            body = end.partial
        except TimeoutError:
            return _answer(408, f"the body did not arrive within {READ_SECONDS:.0f} s")
        else:
            return _answer(413, f"a report has at most {MAX_BODY_BYTES} bytes")
        try:
            record = ProgressReport.model_validate_json(body).record()
        except ValidationError as error:
            return _answer(400, "; ".join(_problem(item) for item in error.errors(include_url=False)[:10]))
        heartbeat = record.heartbeat_time
        if heartbeat is not None and heartbeat > self._now() + MAX_CLOCK_SKEW:
            # It would stay the newest record, and the attempt could never count as stalled.
            return _answer(400, f"heartbeatTime: {heartbeat.isoformat()} is in the future")
        state = await self._cluster.finetunejob(ref)
        if state is None:
            raise UnknownJob(f"there is no FineTuneJob {ref.namespace}/{ref.name} with UID {ref.uid}")
        if state.finished:
            return _answer(410, "the job has ended")
        if reporter.attempt < state.attempt:
            return _answer(409, f"attempt {reporter.attempt} has ended: the job is at attempt {state.attempt}")
        self._writer.submit(Report(ref=ref, attempt=reporter.attempt, record=record))
        return web.json_response({"status": "ok"})


def _problem(item: ErrorDetails) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "body"
    return f"{where}: {item['msg']}"


def _answer(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)
