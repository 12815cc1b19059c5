"""The pod's own identity from an agent that comes late, stumbles, never comes, or goes away."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import identityagent
import s3server
from finetune_trainer.contract.failure import FAILURES, FailureReason, Policy, TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.retry import RetryNotifier, RetryPolicy
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.timing import Timing
from identityagent import Agent
from localcluster.records import Keys
from s3server import S3Server
from sleeping import SleepingClock

pytestmark = pytest.mark.extras

UNAVAILABLE, DENIED = FailureReason.STORAGE_UNAVAILABLE, FailureReason.STORAGE_ACCESS_DENIED
PLACE = parse_uri("s3://data/identity/x")


@pytest.fixture(autouse=True)
def pod(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a pod without any identity."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    # The SDK itself asks three times, a second apart.
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    return monkeypatch


def given(pod: pytest.MonkeyPatch, agent: Agent) -> None:
    """Tells the pod of its agent."""
    for name, value in agent.environment.items():
        pod.setenv(name, value)


def store(s3: S3Server, seconds: float, pauses: Callable[[float], object] | None = None) -> tuple[S3Store, list[str]]:
    """A store without a Secret that waits so long for an identity, and what it says meanwhile."""
    told: list[str] = []
    identity = RetryPolicy(seconds=seconds, first_pause=0.05, longest_pause=0.2)
    if pauses is not None:
        identity = replace(identity, sleep=pauses)
    timing = Timing(attempts=1, identity=identity)
    return S3Store(
        s3.spec, None, timing=timing.with_notifier(RetryNotifier(lambda message: told.append(message or "done")))
    ), told


def test_an_agent_that_starts_after_the_pod_is_waited_for(s3: S3Server, pod: pytest.MonkeyPatch) -> None:
    s3.put("identity/x", b"content")
    with identityagent.agent(s3.admin) as agent:
        given(pod, agent)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                agent.start()

        late, told = store(s3, 60, pause)
        assert late.read(PLACE) == b"content"
    assert len(pauses) == 2
    assert told[-1] == "done"
    assert f"the agent at {agent.environment['AWS_CONTAINER_CREDENTIALS_FULL_URI']}" in told[0]


def test_an_agent_that_answers_with_an_error_first_is_asked_again(s3: S3Server, pod: pytest.MonkeyPatch) -> None:
    s3.put("identity/x", b"content")
    with identityagent.agent(s3.admin, *[500] * 7) as agent:
        agent.start()
        given(pod, agent)
        stumbling, told = store(s3, 60)
        assert stumbling.read(PLACE) == b"content"
    assert agent.asked == 8
    assert "500" in told[0]


def test_an_agent_that_never_comes_ends_the_attempt_and_not_the_job(s3: S3Server, pod: pytest.MonkeyPatch) -> None:
    with identityagent.agent(s3.admin) as agent:
        given(pod, agent)
        with pytest.raises(TrainerError, match=r"the identity was not obtained from the agent at http://127") as caught:
            store(s3, 0.3)[0].read(PLACE)
    assert caught.value.reason is UNAVAILABLE
    assert FAILURES[caught.value.reason].policy is Policy.RETRY


def test_many_threads_wait_for_one_identity(s3: S3Server, pod: pytest.MonkeyPatch) -> None:
    s3.put("identity/x", b"content")
    with identityagent.agent(s3.admin, *[500] * 4) as agent:
        agent.start()
        given(pod, agent)
        shared, _ = store(s3, 60)
        found: list[bytes | None] = []
        threads = [threading.Thread(target=lambda: found.append(shared.read(PLACE))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [b"content"] * 6
    assert agent.asked == 5


def test_an_agent_that_is_gone_when_the_credentials_run_out_may_come_back(
    s3: S3Server, pod: pytest.MonkeyPatch
) -> None:
    """Hours later, with an adapter to put: the retries of storage cover it, since the reason is that of an outage."""
    s3.put("identity/x", b"content")
    with identityagent.agent(s3.admin) as agent:
        agent.start()
        given(pod, agent)
        long, _ = store(s3, 0)
        assert long.read(PLACE) == b"content"
        credentials = long._connection.client._request_signer._credentials  # type: ignore[attr-defined]
        credentials._expiry_time = credentials._time_fetcher()
        agent.refusals = [503] * 3
        with pytest.raises(TrainerError, match="the identity was not obtained from the agent") as caught:
            long.read(PLACE)
        assert caught.value.reason is UNAVAILABLE
        assert long.read(PLACE) == b"content"


def test_a_pod_without_any_identity_waits_a_little_and_is_refused_for_good(s3: S3Server) -> None:
    clock = SleepingClock()
    timing = Timing(attempts=1, identity=clock.retry_policy(seconds=60))
    with pytest.raises(TrainerError, match=r"no credentials were found; set storage\.secretRef") as caught:
        S3Store(s3.spec, None, timing=timing).read(PLACE)
    assert caught.value.reason is DENIED
    assert 5 < clock.now <= 10


def test_another_machine_without_any_identity_is_refused_at_once(s3: S3Server, pod: pytest.MonkeyPatch) -> None:
    pod.delenv("KUBERNETES_SERVICE_HOST")
    nobody, told = store(s3, 60)
    with pytest.raises(TrainerError, match="no credentials were found") as caught:
        nobody.read(PLACE)
    assert caught.value.reason is DENIED
    assert told == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/credentials"}, "Unsupported host"),
        (
            {"AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token"},
            "No such file",
        ),
    ],
)
def test_what_is_set_up_wrongly_is_final_and_told(
    s3: S3Server, pod: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        pod.setenv(name, value)
    wrong, told = store(s3, 60)
    with pytest.raises(TrainerError, match=f"the identity was not obtained from .*{words}") as caught:
        wrong.read(PLACE)
    assert caught.value.reason is DENIED
    assert told == []


def test_wrong_keys_of_a_secret_are_final_whatever_agent_there_is(
    s3: S3Server, pod: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with identityagent.agent(s3.admin) as agent:
        given(pod, agent)
        wrong = S3Store(s3.spec, s3server.mount(tmp_path, Keys("NOSUCHKEY1234", "secret")), timing=Timing(attempts=1))
        with pytest.raises(TrainerError, match="InvalidAccessKeyId") as caught:
            wrong.read(PLACE)
    assert caught.value.reason is DENIED
    assert agent.asked == 0
