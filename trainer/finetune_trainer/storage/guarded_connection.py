"""A connection that refuses forbidden addresses, for HTTP clients that are made of urllib3's classes."""

import socket

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.endpoint import why_address_refused, why_host_refused


class GuardedConnection:
    """A connection to a server or a proxy that checks the address it leads to, whatever the name resolved to before.

    It is mixed into a connection class of urllib3, before it.

    Attributes:
        field: the field of the spec that names the server, for messages.
    """

    field = "storage.endpoint"
    host: str
    port: int

    def _new_conn(self) -> socket.socket:
        """Connects, and sends nothing yet. urllib3 prescribes the name.

        Raises:
            TrainerError: INVALID_SPEC.
        """
        self._require(why_host_refused(self.host, self.port))
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            self._require(why_address_refused(sock.getpeername()[0]))
        except BaseException:
            sock.close()
            raise
        return sock

    def _require(self, why_refused: str | None) -> None:
        if why_refused is not None:
            message = f"{self.field}: a connection to {self.host} is refused: {why_refused}"
            raise TrainerError(FailureReason.INVALID_SPEC, message)
