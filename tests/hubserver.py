"""A small stand-in for the Hugging Face Hub: the parts of its HTTP API that uploading and fetching a model take."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

LARGE = (".safetensors",)
REVISION = "0" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a dict of files; large files come by LFS, as to the real one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.token = "hf_secret"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def tell(self, record: Any, status: int = 200) -> None:
        self.answer(json.dumps(record).encode(), status, Content_Type="application/json")

    @property
    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def words(self) -> list[str]:
        return self.path.partition("?")[0].strip("/").split("/")

    def do_POST(self) -> None:
        body = self.body
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.tell({"error": "Invalid username or password."}, 401)
        match self.words:
            case ["api", "validate-yaml"]:
                return self.tell({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                if name in self.server.repositories:
                    return self.tell({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
                self.server.repositories[name] = {}
                self.server.private[name] = asked.get("private") or asked.get("visibility") == "private"
                return self.tell({"url": f"{self.server.address}/{name}", "name": name, "id": name})
            case ["api", "models", _, _, "preupload", "main"]:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = [("lfs" if path.endswith(LARGE) else "regular") for path in paths]
                files = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in zip(paths, modes, strict=True)]
                return self.tell({"files": files})
            case [owner, repo, "info", "lfs", "objects", "batch"] if repo.endswith(".git"):
                objects = [
                    {**wanted, "actions": {"upload": {"href": f"{self.server.address}/lfs/{wanted['oid']}"}}}
                    for wanted in json.loads(body)["objects"]
                ]
                return self.tell({"transfer": "basic", "objects": objects})
            case ["api", "models", owner, repo, "commit", "main"]:
                for line in map(json.loads, body.splitlines()):
                    self.commit(self.server.repositories[f"{owner}/{repo}"], line["key"], line["value"])
                url = f"{self.server.address}/{owner}/{repo}/commit/{REVISION}"
                return self.tell({"commitUrl": url, "commitOid": REVISION})
        self.tell({"error": f"no such thing: {self.path}"}, 404)

    def commit(self, files: dict[str, bytes], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = self.server.stored[value["oid"]]

    def do_PUT(self) -> None:
        body, (_, oid) = self.body, self.words
        if hashlib.sha256(body).hexdigest() != oid:
            return self.tell({"error": "another file"}, 400)
        self.server.stored[oid] = body
        self.answer(b"")

    def do_GET(self) -> None:
        match self.words:
            case ["api", "models", owner, repo, *rest] if f"{owner}/{repo}" in self.server.repositories:
                files = self.server.repositories[f"{owner}/{repo}"]
                if rest[:1] == ["tree"]:
                    return self.tell(
                        [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in files.items()]
                    )
                siblings = [{"rfilename": name} for name in files]
                return self.tell({"id": f"{owner}/{repo}", "sha": REVISION, "siblings": siblings})
            case [owner, repo, "resolve", _, name] if name in self.server.repositories.get(f"{owner}/{repo}", ()):
                content = self.server.repositories[f"{owner}/{repo}"][name]
                etag = hashlib.sha256(content).hexdigest()
                return self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=REVISION)
        self.answer(b"", 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that answers on this machine as long as the block runs."""
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
