"""A stand-in for the Hugging Face hub: the HTTP requests with which its client makes a repository and uploads to it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0" * 40


@dataclass
class Hub:
    """What the stand-in knows: its user, and the files of each repository, as they were committed."""

    endpoint: str = ""
    token: str = "hf_right"
    role: str = "write"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuses_commits: bool = False

    def user(self) -> dict[str, object]:
        orgs = [{"name": "lab", "roleInOrg": "write"}, {"name": "reader", "roleInOrg": "read"}]
        token = {"displayName": "t", "role": self.role}
        return {"type": "user", "name": "me", "orgs": orgs, "auth": {"accessToken": token}}


@contextmanager
def running() -> Iterator[Hub]:
    """Run a stand-in on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub

    def do_GET(self) -> None:
        path = self._begin()
        if path == "/api/whoami-v2":
            return self._send(200, self.state.user())
        parts = path.split("/")
        repository = "/".join(parts[3:5])
        if path.startswith("/api/models/") and repository in self.state.repositories:
            siblings = [{"rfilename": name} for name in self.state.repositories[repository]]
            private = self.state.private.get(repository, False)
            return self._send(200, {"id": repository, "sha": COMMIT, "siblings": siblings, "private": private})
        return self._send(404, {"error": "Repository not found"}, code="RepoNotFound")

    def do_POST(self) -> None:
        path, body = self._begin(), self._body()
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            self.state.repositories.setdefault(name, {".gitattributes": b""})
            self.state.private[name] = given.get("visibility") == "private" or given.get("private") is True
            return self._send(200, {"url": f"{self.state.endpoint}/{name}"})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in files
            ]
            return self._send(200, {"files": modes})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.state.endpoint}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._send(200, {"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            return self._commit("/".join(path.split("/")[3:5]), body)
        return self._send(404, {"error": "not found"})

    def do_PUT(self) -> None:
        path, body = self._begin(), self._body()
        digest = hashlib.sha256(body).hexdigest()
        assert path == f"/lfs/{digest}"
        self.state.large[digest] = body
        self._send(200, {})

    def _commit(self, repository: str, body: bytes) -> None:
        if self.state.refuses_commits:
            return self._send(403, {"error": "Storage limit reached"})
        for line in body.splitlines():
            given = json.loads(line)
            value = given["value"]
            if given["key"] == "file":
                self.state.repositories[repository][value["path"]] = base64.b64decode(value["content"])
            elif given["key"] == "lfsFile":
                self.state.repositories[repository][value["path"]] = self.state.large[value["oid"]]
        url = f"{self.state.endpoint}/{repository}/commit/{COMMIT}"
        return self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _begin(self) -> str:
        path = self.path.partition("?")[0]
        self.state.requests.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, content: object, code: str = "") -> None:
        if not self.path.startswith("/lfs/") and self.headers["Authorization"] != f"Bearer {self.state.token}":
            status, content, code = 401, {"error": "Invalid username or password."}, ""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
