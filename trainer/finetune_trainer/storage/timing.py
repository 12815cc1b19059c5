"""Time limits of S3 requests, and the notifier of waits."""

from dataclasses import dataclass, field, replace

from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.retry import LOG_ONLY, LatePause, RetryNotifier, RetryPolicy

_LONGEST_PAUSE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Time limits of S3 requests.

    Attributes:
        attempts: the largest number of tries of one request. The pauses between them grow and have jitter.
        connect_seconds: the longest wait for a connection.
        silence_seconds: the longest wait for the first bytes of an answer, and for further bytes.
        repeat_seconds: the deadline for retries of a request. Without it, a server that accepts connections and sends
            nothing would cost `attempts` times `silence_seconds`.
        unreachable_seconds: the same deadline for a request that was never sent, because the name does not resolve, the
            port is closed, or no connection is made.
        low_speed_limit: the lowest speed of an answer.
        reading: the retry policy while an object is read and no further bytes come.
        identity: the retry policy for an agent that gives the pod its credentials. On a new node, the agent may start
            half a minute after the pod.
        rotation: the retry policy while the server refuses keys that it accepted before. A pod sees a changed Secret up
            to two minutes late, and a server may accept new keys late, too.
        notifier: is told about every wait.
    """

    attempts: int = 8
    connect_seconds: float = 5.0
    silence_seconds: float = 30.0
    repeat_seconds: float = 60.0
    unreachable_seconds: float = 60.0
    low_speed_limit: LowSpeedLimit = field(default_factory=LowSpeedLimit)
    reading: RetryPolicy = field(default_factory=lambda: RetryPolicy(seconds=90.0, first_pause=0.2, longest_pause=10.0))
    identity: RetryPolicy = field(default_factory=lambda: RetryPolicy(seconds=60.0, longest_pause=5.0))
    rotation: RetryPolicy = field(default_factory=lambda: RetryPolicy(seconds=180.0, longest_pause=10.0))
    notifier: RetryNotifier = LOG_ONLY

    @property
    def requests(self) -> RetryPolicy:
        """The retry policy for a request without an answer, or with an error that may pass."""
        policy = RetryPolicy(
            seconds=self.repeat_seconds,
            tries=self.attempts,
            longest_pause=_LONGEST_PAUSE,
            jitter=True,
            late_pause=LatePause.SHORTEN,
            notifier=self.notifier,
        )
        return replace(policy, unreachable=replace(policy, seconds=self.unreachable_seconds))

    def with_notifier(self, notifier: RetryNotifier) -> "Timing":
        """Returns the same limits with another notifier."""
        return replace(
            self,
            notifier=notifier,
            reading=replace(self.reading, notifier=notifier),
            identity=replace(self.identity, notifier=notifier),
            rotation=replace(self.rotation, notifier=notifier),
        )


TRAINING = Timing()
"""The limits of training, where an outage must not throw away what was computed."""
CHECKING = Timing(unreachable_seconds=15.0)
"""The limits of preflight, where a wrong address is likelier than an outage.

The limit is not zero, because names and routes of a new pod may work only after some seconds.
"""
