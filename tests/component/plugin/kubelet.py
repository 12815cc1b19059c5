"""A node whose kubelet has only logs: the API server asks it for them as it asks any kubelet."""

import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from component.plane import Plane, free_port

NODE = "logs-only"


@dataclass
class Logs:
    """Logs by pod.

    Attributes:
        texts: what a pod has printed.
        asked: path and options of each request.
        on_end: called after a log was sent, with the pod's name.
    """

    texts: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    on_end: Callable[[str], None] = lambda _: None


@contextmanager
def kubelet(plane: Plane, folder: Path) -> Iterator[Logs]:
    """Runs the kubelet, and registers its node."""
    logs = Logs()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            pod = place.path.split("/")[3]
            logs.asked.append((place.path, parse_qs(place.query)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(logs.texts.get(pod, b""))
            logs.on_end(pod)

        def log_message(self, *_: Any) -> None:
            pass

    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    plane.kubectl("create", "-f", "-", stdin=json.dumps(node))
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    patch = json.dumps({"status": status})
    plane.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "--patch", patch)
    try:
        yield logs
    finally:
        plane.kubectl("delete", "node", NODE)
        server.shutdown()
        server.server_close()
        thread.join()
