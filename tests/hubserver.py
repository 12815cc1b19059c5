"""A small Hugging Face Hub on loopback. It answers the requests of huggingface_hub as the real Hub does.

It has two servers: the Hub itself (descriptions, small files), and a store on another port, to which requests for large
files are redirected. The store is like the CDN of the real Hub, which must never get a token. Every request is
recorded.

    GET       /api/models/ORG/NAME/revision/REV           commit, files with size and Git or LFS identity
    HEAD      /ORG/NAME/resolve/REV/FILE                  redirect: to the cache route, or to the store for LFS
    HEAD, GET /api/resolve-cache/models/ORG/NAME/COMMIT/FILE
    GET       /ORG/NAME/SHA256                            on the store

A data set's routes have `datasets` for `models`, and `/datasets/ORG/NAME/resolve/…`. Its name here is
`datasets/ORG/NAME`.
"""

import hashlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit

_LOOPBACK = "127.0.0.1"
_LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".parquet", ".gz")
_PAGE = b"<html>a login page</html>"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One recorded request."""

    host: str
    """`hub` or `store`."""
    method: str
    path: str
    authorization: str | None
    user_agent: str
    first: int = 0
    """Offset of the first requested byte."""


@dataclass(kw_only=True)
class Fault:
    """An error instead of the right answer, for requests whose path contains `path`.

    Attributes:
        status: HTTP status of the answer. 0 means that the connection ends before the announced length.
        times: number of requests that get the fault. Later ones get the right answer.
        sent: with status 0, number of the file's bytes that are sent before the connection ends. Negative: the whole
            file with a wrong last byte is sent, and the connection stays.
        reset: with `sent`, True resets the connection (RST) instead of closing it.
        drips: True sends one byte now and then after `sent` bytes, for 20 s or until the client closes.
        headers: headers of the answer.
        body: body of the answer.
    """

    path: str
    status: int
    times: int = 1_000_000
    sent: int | None = None
    reset: bool = False
    drips: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(kw_only=True)
class Repository:
    """A model or data set with its commits, and its branches and tags."""

    name: str
    gated: bool = False
    private: bool = False
    xet: bool = False
    """True offers large files through Xet without a Xet server, like a mirror that copies the Hub's headers."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Creates a commit with these files on a branch. Returns the commit."""
        digest = hashlib.sha1(f"{self.name} {len(self.commits)}".encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs[branch] = digest
        return digest

    def resolve(self, revision: str) -> str | None:
        """Returns the commit of a revision, or None."""
        return revision if revision in self.commits else self.refs.get(revision)


class Hub:
    """The state of the servers: models, access rights, faults and recorded requests."""

    def __init__(self) -> None:
        self.models: dict[str, Repository] = {}
        """Models by `org/name`, data sets by `datasets/org/name`."""
        self.readers: dict[str, set[str]] = {}
        """Maps each access token to the gated and private models that it may read."""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.left = 0
        """Number of clients that closed the connection before the end of a dripping answer."""
        self.endpoint = ""
        self.store = ""

    def add(self, name: str, files: dict[str, bytes], *, gated: bool = False, private: bool = False) -> Repository:
        """Adds a model or a data set with one commit on `main`."""
        model = self.models[name] = Repository(name=name, gated=gated, private=private)
        model.commit(files)
        return model

    def asked(self, name: str) -> list[Request]:
        """Returns the requests for one model in their order."""
        return [item for item in list(self.requests) if f"/{name}/" in item.path]

    def may_read(self, model: Repository, token: str | None) -> bool:
        return not (model.gated or model.private) or model.name in self.readers.get(token or "", ())


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """Runs a Hub. With `tls` it uses https."""
    hub = Hub()
    servers = [_serve(hub, handler) for handler in (_HubHandler, _StoreHandler)]
    if tls is not None:
        for server in servers:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    hub.endpoint, hub.store = (f"{scheme}://{_LOOPBACK}:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _serve(hub: Hub, handler: "type[_Handler]") -> ThreadingHTTPServer:
    return ThreadingHTTPServer((_LOOPBACK, 0), type("Bound", (handler,), {"hub": hub}))


class _Handler(BaseHTTPRequestHandler):
    """Records the request, applies faults, and sends answers."""

    hub: Hub
    host: str
    protocol_version = "HTTP/1.1"
    broken: Fault | None = None
    """What happens to the file that is about to be sent."""

    @property
    def first_byte(self) -> int:
        return int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(
            Request(
                host=self.host,
                method=self.command,
                path=path,
                authorization=self.headers.get("authorization"),
                user_agent=self.headers.get("user-agent", ""),
                first=self.first_byte,
            )
        )
        for fault in self.hub.faults:
            if fault.path in path and fault.times > 0 and (fault.status or self.command == "GET"):
                fault.times -= 1
                if fault.status:
                    self.send(fault.status, fault.body, **fault.headers)
                    return
                if fault.sent is not None:
                    self.broken = fault
                    break
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half of it")
                self.close_connection = True
                return
        self.answer(path)

    do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "GET":
            return
        if (fault := self.broken) is None:
            self.wfile.write(body)
        elif fault.sent is not None and fault.sent < 0:
            self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
        else:
            self.wfile.write(body[: fault.sent])
            self.close_connection = True
            if fault.drips:
                self._drip(body[fault.sent :])
            if fault.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
        self.broken = None

    def _drip(self, body: bytes) -> None:
        try:
            for place in range(min(len(body), 200)):
                self.wfile.write(body[place : place + 1])
                time.sleep(0.1)
        except OSError:
            self.hub.left += 1

    def send_file(self, content: bytes, **headers: str) -> None:
        """Sends a file, or the requested part of it."""
        start = self.first_byte
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], Accept_Ranges="bytes", **headers)

    def refuse(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self.send(status, json.dumps({"error": message}).encode(), Content_Type="application/json", **headers)

    def log_message(self, *_: object) -> None:
        """Does nothing, because requests are recorded instead."""


class _HubHandler(_Handler):
    host = "hub"

    def answer(self, path: str) -> None:
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        if token is not None and token not in self.hub.readers:
            self.refuse(401, "Invalid credentials in Authorization header")
            return
        parts = path.strip("/").split("/")
        match parts:
            case ["api", "models" | "datasets" as kind, organisation, name, "revision", *revision]:
                self._describe(_name_of(kind, organisation, name), "/".join(revision), token)
            case ["api", "resolve-cache", "models" | "datasets" as kind, organisation, name, commit, *file]:
                self._file(_name_of(kind, organisation, name), commit, "/".join(file), token, cached=True)
            case ["datasets", organisation, name, "resolve", revision, *file]:
                self._file(f"datasets/{organisation}/{name}", revision, "/".join(file), token, cached=False)
            case [organisation, name, "resolve", revision, *file]:
                self._file(f"{organisation}/{name}", revision, "/".join(file), token, cached=False)
            case _:
                self.refuse(404, "Not found")

    def _find(self, name: str, revision: str, token: str | None) -> tuple[Repository, str] | None:
        model = self.hub.models.get(name)
        if model is None or (model.private and not self.hub.may_read(model, token)):
            # Without the right token, the answer does not show whether the model exists.
            self.refuse(404 if token else 401, "Repository not found", "RepoNotFound")
            return None
        commit = model.resolve(revision)
        if commit is None:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return None
        return model, commit

    def _describe(self, name: str, revision: str, token: str | None) -> None:
        """Sends a model's description. Everybody may read that of a gated model."""
        if (found := self._find(name, revision, token)) is None:
            return
        model, commit = found
        siblings = [_sibling(file, content) for file, content in sorted(model.commits[commit].items())]
        answer = {"id": name, "sha": commit, "gated": "auto" if model.gated else False, "siblings": siblings}
        self.send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def _file(self, name: str, revision: str, file: str, token: str | None, *, cached: bool) -> None:
        if (found := self._find(name, revision, token)) is None:
            return
        model, commit = found
        if not self.hub.may_read(model, token):
            kind = "dataset" if name.startswith("datasets/") else "model"
            message = f"Access to {kind} {name} is restricted and you are not in the authorized list."
            self.refuse(403 if token else 401, message, "GatedRepo")
            return
        content = model.commits[commit].get(file)
        if content is None:
            self.refuse(404, "Entry not found", "EntryNotFound")
        elif file.endswith(_LFS_SUFFIXES):
            digest = hashlib.sha256(content).hexdigest()
            route = f"{self.hub.endpoint}/api/models/{name}/xet-read-token/{commit}"
            offer = {"X_Xet_Hash": digest, "Link": f'<{route}>; rel="xet-auth"'} if model.xet else {}
            self.send(
                302,
                b"",
                **offer,
                Location=f"{self.hub.store}/{name}/{digest}",
                X_Repo_Commit=commit,
                X_Linked_Etag=f'"{digest}"',
                X_Linked_Size=str(len(content)),
            )
        elif cached:
            self.send_file(content, ETag=f'"{_blob_id(content)}"', X_Repo_Commit=commit)
        else:
            route = name if name.startswith("datasets/") else f"models/{name}"
            place = f"/api/resolve-cache/{route}/{commit}/{quote(file)}"
            self.send(307, Location=place, X_Repo_Commit=commit, X_Linked_Etag=f'"{_blob_id(content)}"')


class _StoreHandler(_Handler):
    host = "store"

    def answer(self, path: str) -> None:
        name, _, digest = path.strip("/").rpartition("/")
        for files in self.hub.models[name].commits.values():
            for content in files.values():
                if hashlib.sha256(content).hexdigest() == digest:
                    self.send_file(content)
                    return
        self.send(403)


def _name_of(kind: str, organisation: str, name: str) -> str:
    return f"{organisation}/{name}" if kind == "models" else f"{kind}/{organisation}/{name}"


def _sibling(file: str, content: bytes) -> dict[str, object]:
    found: dict[str, object] = {"rfilename": file, "size": len(content), "blobId": _blob_id(content)}
    if file.endswith(_LFS_SUFFIXES):
        digest = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return found


def _blob_id(content: bytes) -> str:
    """Returns Git's object name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
