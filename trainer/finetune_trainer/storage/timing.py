"""Time limits of S3 requests, and who is notified of waits."""

from dataclasses import dataclass, field, replace

from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.retry import LOG_ONLY, LatePause, RetryNotifier, RetryPolicy

_LONGEST_PAUSE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a server is waited for.

    Attributes:
        attempts: tries of one request, with a growing, jittered pause: a dead endpoint is reported within a minute.
        connect_seconds: for a connection.
        silence_seconds: for the first and for further bytes of an answer.
        repeat_seconds: after which a request is not repeated any more. A server that accepts connections and is silent
            would take all the tries at their full length.
        unreachable_seconds: the same for one that was never sent: the name does not resolve, the port is closed, or no
            connection comes about.
        low_speed_limit: the slowest answer.
        reading: with a server that gives no further byte of an object.
        identity: with an agent that gives the pod its credentials. It may start after the pod, on a new node by half a
            minute.
        notifier: reports what is being waited for.
    """

    attempts: int = 8
    connect_seconds: float = 5.0
    silence_seconds: float = 30.0
    repeat_seconds: float = 60.0
    unreachable_seconds: float = 60.0
    low_speed_limit: LowSpeedLimit = field(default_factory=LowSpeedLimit)
    reading: RetryPolicy = field(default_factory=lambda: RetryPolicy(seconds=90.0, first_pause=0.2, longest_pause=10.0))
    identity: RetryPolicy = field(default_factory=lambda: RetryPolicy(seconds=60.0, longest_pause=5.0))
    notifier: RetryNotifier = LOG_ONLY

    @property
    def requests(self) -> RetryPolicy:
        """When a request is sent again that got no answer, or one that may pass."""
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
        """The same limits with another notifier."""
        reading, identity = replace(self.reading, notifier=notifier), replace(self.identity, notifier=notifier)
        return replace(self, notifier=notifier, reading=reading, identity=identity)


TRAINING = Timing()
"""Of a training: what has been computed is not thrown away for an outage."""
CHECKING = Timing(unreachable_seconds=15.0)
"""Of preflight, where a wrong address is likelier than an outage. Names and routes of a new pod come seconds late."""
