"""Runs `kubectl port-forward` inside a block, and starts it again whenever it ends.

kubectl ends when the server's pod is deleted, and when the server resets any connection (kubernetes/kubernetes#111825).
The port stays the same, so a client only has to retry.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from localcluster.kubectl import Kubectl
from localcluster.ports import choose

_LOOPBACK = "127.0.0.1"
_PAUSE_SECONDS = 0.2
_END_SECONDS = 5
_WORDS = 300
"""Number of characters of kubectl's last output that are kept."""


class PortForward:
    """A port-forward that a thread keeps running.

    Attributes:
        port: port on this machine's loopback.
        words: kubectl's last output when it last ended; empty before.
    """

    def __init__(self, kubectl: Kubectl, namespace: str, target: str, remote_port: int) -> None:
        self.port = choose(_LOOPBACK, remote_port)
        self.words = ""
        self._argv = [
            kubectl.program, f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={namespace}",
            "port-forward", f"--address={_LOOPBACK}", target, f"{self.port}:{remote_port}",
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name=f"port-forward {target}", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int | None:
        """Process id of the current kubectl, or None between two."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def close(self) -> None:
        """Ends the port-forward. Returns when its process has ended."""
        with self._changing:
            self._closed.set()
            process = self._process
        if process is not None:
            process.terminate()
            self._keeper.join(_END_SECONDS)
            process.kill()
        self._keeper.join()

    def _keep_up(self) -> None:
        while True:
            with self._changing:
                if self._closed.is_set():
                    return
                # Its own session, so that Ctrl-C does not end it: the caller needs the port-forward to clean up.
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            _, said = self._process.communicate()
            self.words = said.strip()[-_WORDS:] or f"ended with {self._process.returncode}"
            self._closed.wait(_PAUSE_SECONDS)


@contextmanager
def port_forward(kubectl: Kubectl, namespace: str, target: str, remote_port: int) -> Iterator[PortForward]:
    """Forwards a port of this machine to a port of a pod or Service, such as `service/s3`, inside the block."""
    forward = PortForward(kubectl, namespace, target, remote_port)
    try:
        yield forward
    finally:
        forward.close()
