"""A Hub on this machine: an HTTP server in a thread that speaks what the Hub client says.

    with Hub() as hub:
        hub.faults.append(Fault("POST", r"/commit/", status=500))
        …  # HF_ENDPOINT=hub.url HF_TOKEN=hub.token HF_HUB_DISABLE_XET=1
        hub.files("ann/model")

Repositories with commits, branches and pull requests, two kinds of storage (git and LFS), users
with tokens and the namespaces where they may write, and a list of faults to come.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import huggingface_hub
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from finetune.hub import transport

TOKEN = "hf_" + "aBcD" * 9

# As the message says what the client's HTTP library found.
REFUSED = "ConnectError: [Errno 111] Connection refused"
TIMED_OUT = "ReadTimeout: timed out"
if transport.IS_REQUESTS:
    REFUSED = (
        "ConnectionError: Failed to establish a new connection: [Errno 111] Connection refused"
    )
    TIMED_OUT = "ReadTimeout: Read timed out. (read timeout=0.1)"


def close_session() -> None:
    """Let the client connect anew. Its releases before 1.0 have a session for each thread."""
    if hasattr(huggingface_hub, "close_session"):
        huggingface_hub.close_session()
    else:
        huggingface_hub.utils.reset_sessions()


@dataclass
class Fault:
    """What happens to the next `times` requests that match, in place of the right answer."""

    method: str
    path: str  # a regular expression, searched
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    html: bool = False
    drop: bool = False  # close the connection without an answer …
    after: bool = False  # … after the request has been carried out
    cut: int | None = None  # close it when so many bytes of the body have come
    hang: float = 0.0  # seconds without an answer
    times: int = 1


@dataclass
class File:
    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repo:
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)  # also refs/pr/1, …
    pulls: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, files: dict[str, File], message: str, branch: str = "main") -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        self.messages.append(message)
        self.branches[branch] = oid
        return oid

    def pull(self, title: str, author: str = "ann", status: str = "open") -> str:
        """Open a pull request; its branch."""
        number = len(self.pulls) + 1
        self.pulls.insert(
            0, {"num": number, "title": title, "author": {"name": author}, "status": status}
        )
        self.branches[f"refs/pr/{number}"] = self.head
        return f"refs/pr/{number}"

    @property
    def head(self) -> str:
        return self.branches["main"]

    def at(self, revision: str) -> dict[str, File] | None:
        """The files of a branch or a commit."""
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    at: float


class Hub:
    """The server, its state, and everything it was asked."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.role = "write"
        self.writable = {"ann", "lab"}
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # large file storage, by SHA-256
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.received: list[bytes] = []  # every body
        self.spoil: dict[str, bytes | None] = {}  # file → what a commit stores in its place
        self.lock = threading.Lock()
        hub = self

        class Bound(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def create(self, repo_id: str, private: bool = False) -> Repo:
        repo = self.repos[repo_id] = Repo(private)
        repo.commit({".gitattributes": File(b"*.safetensors lfs\n", False)}, "initial commit")
        return repo

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The content at the repository's head, or of another branch."""
        files = self.repos[repo_id].at(revision)
        assert files is not None
        return {name: file.content for name, file in files.items()}

    def asked(self, method: str, path: str) -> int:
        """How many requests matched."""
        return sum(r.method == method and bool(re.search(path, r.path)) for r in self.requests)


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        hub = self.state
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        path = "/" + "/".join(parts)
        with hub.lock:
            hub.requests.append(Request(self.command, path, dict(self.headers), time.monotonic()))
            fault = next(
                (
                    fault
                    for fault in hub.faults
                    if fault.method == self.command and re.search(fault.path, path) and fault.times
                ),
                None,
            )
            if fault is not None:
                fault.times -= 1
        if fault is not None and fault.cut is not None:
            self.rfile.read(fault.cut)
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        body = self._body()
        with hub.lock:
            hub.received.append(body)
            if fault is None or fault.after:
                status, answer, headers = self._answer(parts, dict(parse_qsl(address.query)), body)
        if fault is not None:
            time.sleep(fault.hang)
            if fault.drop or fault.hang:
                self.close_connection = True
                return self.connection.shutdown(socket.SHUT_RDWR)
            status, answer, headers = fault.status, {"error": fault.error}, fault.headers
            if fault.html:
                answer, headers = b"<html>502 Bad Gateway</html>", {"Content-Type": "text/html"}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 # http.server's names  # http.server's names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(
        self, parts: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        hub = self.state
        known = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if self.command == "PUT":  # a signed address: without the token
            assert "Authorization" not in self.headers
            sha = parts[-1]
            if hashlib.sha256(body).hexdigest() != sha:
                return 400, {"error": "another content"}, {}
            hub.blobs[sha] = body
            return 200, {}, {}
        if parts == ["api", "agent-harnesses"]:
            return 404, {}, {}
        if not known:
            why = "Invalid credentials in Authorization header"
            return 401, {"error": why}, {"X-Error-Message": why}
        data = json.loads(body) if body and "commit" not in parts else None
        match parts:
            case ["api", "whoami-v2"]:
                return 200, self._user(), {}
            case ["api", "repos", "create"]:
                return self._create(data)
            case ["api", "validate-yaml"]:
                return self._validate(data["content"])
            case ["api", "models", user, name, *rest]:
                return self._model(f"{user}/{name}", rest, query, body)
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [self._lfs(item) for item in data["objects"]]
                return 200, {"transfer": "basic", "objects": objects}, {}
            case ["verify"]:
                there = hub.blobs.get(data["oid"])
                return (200 if there is not None and len(there) == data["size"] else 404), {}, {}
            case [user, name, "resolve", revision, *parts]:
                return self._resolve(f"{user}/{name}", revision, "/".join(parts))
        return 404, {"error": f"no such address: {self.path}"}, {}

    def _user(self) -> dict[str, Any]:
        auth = {"type": "access_token", "accessToken": {"role": self.state.role}}
        return {"type": "user", "name": "ann", "orgs": [{"name": "lab"}], "auth": auth}

    def _create(self, data: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        hub, space = self.state, data["organization"] or "ann"
        repo_id = f"{space}/{data['name']}"
        if space not in hub.writable:
            why = f'You don\'t have the rights to create a model under the namespace "{space}"'
            return 403, {"error": why}, {}
        answer = {"url": f"{hub.url}/{repo_id}", "name": repo_id}
        if repo_id in hub.repos:
            return 409, {"error": "You already created this model repo", **answer}, {}
        private = data.get("visibility") == "private" or data.get("private", False)  # before 1.0
        hub.create(repo_id, private)
        return 200, answer, {}

    def _validate(self, content: str) -> tuple[int, Any, dict[str, str]]:
        parts = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            YAML(typ="safe").load(parts[1] if parts else "")
        except YAMLError as error:
            return 400, {"errors": [{"message": str(error).splitlines()[0]}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def _model(
        self, repo_id: str, rest: list[str], query: dict[str, str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        repo = self.state.repos.get(repo_id)
        if repo is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        no_revision = 404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"}
        may_write = repo_id.partition("/")[0] in self.state.writable and self.state.role == "write"
        match rest:
            case ["preupload" | "commit", revision] if not may_write and not (
                "create_pr" in query or revision.startswith("refs/pr/")
            ):
                return 403, {"error": "Forbidden: pass `create_pr=1` to create a Pull Request"}, {}
            case ["branch", _] if not may_write:
                return 403, {"error": "Forbidden"}, {}
            case ["branch", name]:
                if name in repo.branches:
                    return 409, {"error": "Reference already exists"}, {}
                repo.branches[name] = repo.head
                return 200, {}, {}
            case ["preupload", revision]:
                head = repo.at(revision)
                if head is None:
                    return no_revision
                return 200, {"files": [_mode(f, head) for f in json.loads(body)["files"]]}, {}
            case ["commit", revision]:
                if revision not in repo.branches:
                    return no_revision
                lines = [json.loads(line) for line in body.splitlines()]
                return self._commit(repo_id, lines, revision, "create_pr" in query)
            case ["discussions"]:
                found = [
                    {
                        **pull,
                        "createdAt": "2025-01-01T00:00:00.000Z",
                        "repo": {"name": repo_id, "type": "model"},
                        "isPullRequest": True,
                    }
                    for pull in repo.pulls
                    if (query["author"], query["status"])
                    == (pull["author"]["name"], pull["status"])
                ]
                return 200, {"discussions": found, "count": len(found), "start": 0}, {}
            case [] | ["revision", _]:
                oid = repo.branches.get(rest[-1] if rest else "main", rest[-1] if rest else "")
                if oid not in repo.commits:
                    return no_revision
                info = {
                    "id": repo_id,
                    "sha": oid,
                    "private": repo.private,
                    "siblings": [{"rfilename": name} for name in repo.commits[oid]],
                }
                return 200, info, {}
            case ["tree", revision]:
                files = repo.at(revision)
                if files is None:
                    return no_revision
                return 200, [_entry(name, file) for name, file in files.items()], {}
        return 404, {"error": "no such address"}, {}

    def _lfs(self, item: dict[str, Any]) -> dict[str, Any]:
        hub, sha = self.state, item["oid"]
        if sha in hub.blobs:
            return {"oid": sha, "size": item["size"]}
        actions = {
            "upload": {"href": f"{hub.url}/storage/{sha}"},
            "verify": {"href": f"{hub.url}/verify"},
        }
        return {"oid": sha, "size": item["size"], "actions": actions}

    def _commit(
        self, repo_id: str, lines: list[Any], revision: str, create_pr: bool
    ) -> tuple[int, Any, dict[str, str]]:
        repo = self.state.repos[repo_id]
        files = dict(repo.at(revision) or {})
        message = ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    assert value["encoding"] == "base64"
                    files[value["path"]] = File(base64.b64decode(value["content"]), False)
                case "lfsFile":
                    files[value["path"]] = File(self.state.blobs[value["oid"]], True)
                case "deletedFile":
                    del files[value["path"]]
                case key:
                    return 400, {"error": f"unknown operation {key}"}, {}
        for name, content in self.state.spoil.items():
            old = files.pop(name)
            if content is not None:
                files[name] = File(content, old.lfs)
        if create_pr:
            revision = repo.pull(message)
        oid = repo.commit(files, message, revision)
        page = f"{self.state.url}/{repo_id}"
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{page}/commit/{oid}"}
        if create_pr:
            answer["pullRequestUrl"] = f"{page}/discussions/{len(repo.pulls)}"
        return 200, answer, {}

    def _resolve(self, repo_id: str, revision: str, name: str) -> tuple[int, Any, dict[str, str]]:
        repo = self.state.repos[repo_id]
        oid = repo.branches.get(revision, revision)
        file = repo.commits[oid].get(name)
        if file is None:
            return 404, {"error": "no entry"}, {"X-Error-Code": "EntryNotFound"}
        return 200, file.content, {"ETag": f'"{file.oid}"', "X-Repo-Commit": oid}


def _mode(file: dict[str, Any], head: dict[str, File]) -> dict[str, Any]:
    """How the client is to send a file, and what the repository has under its name."""
    mode = "lfs" if file["path"].endswith((".safetensors", ".model")) else "regular"
    old = head.get(file["path"])
    answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
    return answer | ({"oid": old.oid} if old is not None else {})


def _entry(name: str, file: File) -> dict[str, Any]:
    size = len(file.content)
    entry = {"type": "file", "path": name, "size": size, "oid": file.oid}
    if not file.lfs:
        return entry
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.oid}\nsize {size}\n"
    oid = File(pointer.encode(), False).oid
    return entry | {
        "oid": oid,
        "lfs": {"oid": file.oid, "size": size, "pointerSize": len(pointer)},
    }
