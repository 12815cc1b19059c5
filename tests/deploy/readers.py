"""The three readers of a spec: the API server, the operator's parser and `finetune validate`."""

import base64
import contextlib
import http.client
import io
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.server import Server
from finetune_operator.api.finetunejob import SpecError, parse_spec
from finetune_operator.cli import main

Spec = dict[str, Any]


def manifest(spec: Spec, name: str = "support-bot") -> dict[str, Any]:
    """Returns the FineTuneJob with a spec."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


class Readers:
    """Asks all three readers. It uses one connection to the server, because one kubectl per spec would take an hour."""

    def __init__(self, server: Server, folder: Path) -> None:
        config = json.loads(server.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        self._folder = folder
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {user['token']}"}
        address = urlsplit(cluster["server"])
        self._connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def server(self, spec: Spec, name: str = "support-bot") -> str:
        """Returns the API server's error for a new object with that spec. Empty when the server accepts it."""
        path = "/apis/finetune.dev/v1alpha1/namespaces/default/finetunejobs?dryRun=All&fieldValidation=Strict"
        body = json.dumps(manifest(spec, name)).encode()
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        return "" if response.status == http.HTTPStatus.CREATED else str(answer["message"])

    def parser(self, spec: Spec) -> list[tuple[str, str]]:
        """Returns path and message of each problem that the operator's parser finds."""
        try:
            parse_spec(spec, own_values=True)
        except SpecError as error:
            return [(problem.path, problem.message) for problem in error.problems]
        return []

    def command_line(self, spec: Spec, name: str = "support-bot") -> str:
        """Returns the output of `finetune validate`. Empty when the file is valid."""
        file = self._folder / "job.yaml"
        # JSON is valid YAML. Escapes keep every character.
        file.write_text(json.dumps(manifest(spec, name)))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main(["validate", str(file)])
        return said.getvalue() if code else ""


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
