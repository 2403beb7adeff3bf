"""A Hugging Face Hub on loopback, as far as its clients need one, that can be told to fail.

It speaks what huggingface_hub, datasets, evaluate and PEFT ask of ``HF_ENDPOINT``: repositories of three kinds,
commits, LFS uploads, tags, paged trees, downloads with ranges and redirects for large files, log-in and private
repositories.
Everything is in memory. Clients run with ``HF_HUB_DISABLE_XET=1``, since there is no Xet server.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LFS_ENDINGS = (".parquet", ".safetensors", ".bin", ".arrow", ".gz", ".zip", ".png")
LFS_SIZE = 10 << 20
#: Entries on a page of a tree.
PAGE = 20
_DATE = "2026-01-01T00:00:00.000Z"
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS).encode()


@dataclass(frozen=True)
class Blob:
    """The content of a file, and how the Hub keeps it."""

    data: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def oid(self) -> str:
        """Git's hash of what git holds: the content, or a pointer to it."""
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)}
        extra = {"lfs": lfs} if self.lfs else {}
        return {"type": "file", "path": path, "oid": self.oid, "size": len(self.data), **extra}


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: Mapping[str, Blob]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    sdk: str | None = None
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """What the newest commit holds, less what the Hub put there itself."""
        return {path: blob.data for path, blob in self.head.files.items() if path != ".gitattributes"}

    def add_commit(self, title: str, files: Mapping[str, Blob]) -> Commit:
        text = json.dumps([self.path, len(self.commits), title, {path: blob.oid for path, blob in files.items()}])
        self.commits.append(Commit(hashlib.sha1(text.encode()).hexdigest(), title, dict(files)))
        return self.head

    def at(self, revision: str) -> Commit | None:
        oid = self.tags.get(revision, revision)
        if oid == "main":
            return self.head
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclass
class Fault:
    """What goes wrong with requests: an answer with a status, or with None a connection that breaks off.

    A message that starts with ``<`` is the whole answer, as that of a proxy in between.
    """

    method: str
    path: re.Pattern[str]
    status: int | None
    times: float
    headers: Mapping[str, str]
    message: str


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None
    status: int | None


class Hub:
    """The state of a Hub.

    Attributes:
        token: the one that is let in, to write in the organisations ``orgs``.
        requests: all that were answered, or broken off (their status is then None).
    """

    def __init__(self, token: str, orgs: tuple[str, ...] = ("org", "me")) -> None:
        self.token, self.orgs = token, orgs
        self.repos: dict[tuple[str, str], Repo] = {}
        self.stored: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.url = self.cdn_url = ""

    def fail(
        self,
        method: str,
        path: str,
        status: int | None = None,
        times: float = 1,
        headers: Mapping[str, str] | None = None,
        message: str = "out of order",
    ) -> None:
        """Let the next requests whose path matches go wrong; ``times`` can be infinite."""
        self.faults.append(Fault(method, re.compile(path), status, times, headers or {}, message))

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None

    def add_repo(self, kind: str, name: str, private: bool = False, sdk: str | None = None) -> Repo:
        repo = self.repos[kind, name] = Repo(kind, name, private, sdk)
        files = {".gitattributes": Blob(_ATTRIBUTES)}
        if kind == "space":
            files["README.md"] = Blob(f"---\ntitle: {name}\nsdk: {sdk}\n---\n".encode())
        repo.add_commit("initial commit", files)
        return repo

    def reset(self) -> None:
        """Forget everything."""
        with self.lock:
            for state in (self.repos, self.stored, self.faults, self.requests):
                state.clear()


class RefusalError(Exception):
    """An answer that is not the one asked for."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes, and the second would wait for the client
    hub: ClassVar[Hub]

    def log_message(self, *_: Any) -> None:
        pass

    # Requests and answers

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def answer(self, status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        self.note(status)
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def note(self, status: int | None) -> None:
        with self.hub.lock:
            self.hub.requests.append(Request(self.command, urlsplit(self.path).path, self.token, status))

    def refuse(self, refusal: RefusalError, headers: Mapping[str, str] | None = None) -> None:
        code = {"X-Error-Code": refusal.code} if refusal.code else {}
        said = {"X-Error-Message": quote(refusal.message, safe=" ,.:'()/")}
        self.answer(refusal.status, {"error": refusal.message}, {**code, **said, **(headers or {})})

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if fault := self.hub.fault_of(self.command, path):
            return self.go_wrong(fault)
        data = self.body()
        try:
            for method, pattern, route in ROUTES:
                if self.command in method.split() and (found := pattern.fullmatch(path)):
                    with self.hub.lock:
                        return route(self, data, **found.groupdict())
            raise RefusalError(404, f"no such page: {self.command} {path}")
        except RefusalError as refusal:
            return self.refuse(refusal)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815 - the library's names

    def go_wrong(self, fault: Fault) -> None:
        if fault.status is None:
            size = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(size // 2)
            self.note(None)
            self.close_connection = True
            self.connection.close()
            return
        self.body()
        if fault.message.startswith("<"):
            self.answer(fault.status, fault.message.encode(), fault.headers)
        else:
            self.refuse(RefusalError(fault.status, fault.message), fault.headers)

    # Who may do what

    def repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get((_KINDS.get(kind, kind), name))
        if repo is None or (repo.private and self.token != self.hub.token):
            raise RefusalError(404 if self.token == self.hub.token else 401, "Repository not found", "RepoNotFound")
        return repo

    def must_write(self, organisation: str) -> None:
        if self.token != self.hub.token:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        if organisation not in self.hub.orgs:
            raise RefusalError(403, f"You don't have the rights to write in the namespace {organisation}")

    def writable(self, kind: str, name: str) -> Repo:
        self.must_write(name.partition("/")[0])
        return self.repo(kind, name)

    @staticmethod
    def commit_at(repo: Repo, revision: str | None) -> Commit:
        commit = repo.at(revision or "main")
        if commit is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Routes

    def create(self, data: bytes) -> None:
        asked = json.loads(data)
        organisation, kind = asked.get("organization") or "me", asked.get("type") or "model"
        name = f"{organisation}/{asked['name']}"
        there = self.hub.repos.get((kind, name))
        self.must_write(organisation)
        private = asked.get("private") or asked.get("visibility") == "private"
        repo = there or self.hub.add_repo(kind, name, bool(private), asked.get("sdk"))
        found = {"url": f"{self.hub.url}/{repo.path}", "name": name, "id": "0" * 24}
        self.answer(409 if there else 200, {"error": "You already created this repo", **found} if there else found)

    def who_am_i(self, data: bytes) -> None:
        if self.token != self.hub.token:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        self.answer(200, {"type": "user", "name": "me", "orgs": [{"name": name} for name in self.hub.orgs], "auth": {}})

    def validate_yaml(self, data: bytes) -> None:
        found = re.match(r"---\n(.*?)\n---\n", json.loads(data)["content"], re.DOTALL)
        errors = []
        try:
            if found and not isinstance(yaml.safe_load(found[1]), dict):
                errors.append({"message": "YAML metadata is no mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        self.answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, data: bytes, kind: str, name: str, revision: str) -> None:
        commit = self.commit_at(self.writable(kind, name), revision)
        files = []
        for asked in json.loads(data)["files"]:
            path, there = asked["path"], commit.files.get(asked["path"])
            lfs = path.endswith(LFS_ENDINGS) or asked["size"] > LFS_SIZE
            mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            files.append({**mode, "oid": there.etag} if there else mode)
        self.answer(200, {"files": files})

    def lfs_batch(self, data: bytes, name: str, kind: str | None = None) -> None:
        self.writable(kind or "models", name)
        objects = []
        for asked in json.loads(data)["objects"]:
            wanted = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.stored:
                hrefs = {
                    action: {"href": f"{self.hub.url}/_lfs/{action}/{asked['oid']}"} for action in ("upload", "verify")
                }
                wanted["actions"] = hrefs
            objects.append(wanted)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_upload(self, data: bytes, digest: str) -> None:
        if hashlib.sha256(data).hexdigest() != digest:
            raise RefusalError(400, "the content has another SHA-256")
        self.hub.stored[digest] = data
        self.answer(200)

    def lfs_verify(self, data: bytes, digest: str) -> None:
        self.answer(200 if digest in self.hub.stored else 404, {})

    def add_commit(self, data: bytes, kind: str, name: str, revision: str) -> None:
        repo = self.writable(kind, name)
        head = self.commit_at(repo, revision)
        files, header = dict(head.files), {}
        for operation in map(json.loads, filter(bytes.strip, data.splitlines())):
            value = operation["value"]
            match operation["key"]:
                case "header":
                    header = value
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]))
                case "lfsFile":
                    if value["oid"] not in self.hub.stored:
                        raise RefusalError(400, f"{value['path']} was not uploaded")
                    files[value["path"]] = Blob(self.hub.stored[value["oid"]], lfs=True)
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
        if header.get("parentCommit") not in (None, repo.head.oid):
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        commit = repo.add_commit(header["summary"], files)
        url = f"{self.hub.url}/{repo.path}/commit/{commit.oid}"
        self.answer(200, {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def add_tag(self, data: bytes, kind: str, name: str, revision: str) -> None:
        repo, tag = self.writable(kind, name), json.loads(data)["tag"]
        commit = self.commit_at(repo, revision)
        if tag in repo.tags:
            raise RefusalError(409, f"Tag reference exists already: refs/tags/{tag}")
        repo.tags[tag] = commit.oid
        self.answer(200, {})

    def refs(self, data: bytes, kind: str, name: str) -> None:
        repo = self.repo(kind, name)
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in repo.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        self.answer(200, {"branches": [main], "tags": tags, "converts": []})

    def info(self, data: bytes, kind: str, name: str, revision: str | None = None) -> None:
        repo = self.repo(kind, name)
        commit = self.commit_at(repo, revision)
        known = {"_id": "0", "id": repo.name, "author": repo.name.partition("/")[0], "sha": commit.oid, "tags": []}
        dates = {"lastModified": _DATE, "createdAt": _DATE, "private": repo.private, "gated": False, "disabled": False}
        files = [{"rfilename": path} for path in sorted(commit.files)]
        extra = {"modelId": repo.name} if repo.kind == "model" else {"sdk": repo.sdk} if repo.sdk else {}
        self.answer(200, {**known, **dates, "downloads": 0, "likes": 0, "siblings": files, **extra})

    def tree(self, data: bytes, kind: str, name: str, revision: str, path: str | None = None) -> None:
        commit = self.commit_at(self.repo(kind, name), revision)
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        recursive = query.get("recursive", "").lower() in ("true", "1")
        entries = list(_tree(commit, (path or "").strip("/"), recursive))
        if path and not entries:
            raise RefusalError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        start = int(query.get("cursor", 0))
        headers = {}
        if len(entries) > start + PAGE:
            flag = "true" if recursive else "false"
            target = f"{self.hub.url}{urlsplit(self.path).path}?recursive={flag}&cursor={start + PAGE}"
            headers["Link"] = f'<{target}>; rel="next"'
        self.answer(200, entries[start : start + PAGE], headers)

    def paths_info(self, data: bytes, kind: str, name: str, revision: str) -> None:
        commit = self.commit_at(self.repo(kind, name), revision)
        asked = json.loads(data)["paths"] if data[:1] == b"{" else parse_qs(data.decode()).get("paths", [])
        everything = {entry["path"]: entry for entry in _tree(commit, "", recursive=True)}
        self.answer(200, [everything[path] for path in asked if path in everything])

    def resolve(self, data: bytes, name: str, revision: str, path: str, kind: str | None = None) -> None:
        commit = self.commit_at(self.repo(kind or "models", name), revision)
        blob = commit.files.get(path)
        if blob is None:
            return self.refuse(RefusalError(404, "Entry not found", "EntryNotFound"), {"X-Repo-Commit": commit.oid})
        headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if not blob.lfs:
            return self.send_content(blob.data, headers)
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
        return self.answer(302, b"", {**headers, **linked, "Location": f"{self.hub.cdn_url}/{blob.sha256}"})

    def cdn(self, data: bytes, digest: str) -> None:
        self.send_content(self.hub.stored[digest], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})

    def send_content(self, content: bytes, headers: Mapping[str, str]) -> None:
        size = len(content)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
            if first >= size:
                return self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
            return self.answer(
                206, content[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}
            )
        return self.answer(200, content, {**headers, "Content-Length": str(size)})


def _tree(commit: Commit, path: str, recursive: bool) -> Iterator[dict[str, Any]]:
    prefix, folders = f"{path}/" if path else "", set()
    for name, blob in sorted(commit.files.items()):
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(2, len(parts))):
            folder = prefix + "/".join(parts[:depth])
            if folder not in folders:
                folders.add(folder)
                oid = hashlib.sha1(folder.encode()).hexdigest()
                yield {"type": "directory", "path": folder, "oid": oid, "size": 0}
        if recursive or len(parts) == 1:
            yield blob.entry(name)


_KIND, _NAME = r"(?P<kind>models|datasets|spaces)", r"(?P<name>[\w.-]+/[\w.-]+)"
_API, _REVISION = f"/api/{_KIND}/{_NAME}", r"(?P<revision>[^/]+)"
_DIGEST = "(?P<digest>[0-9a-f]{64})"
_PREFIX = r"(?:(?P<kind>datasets|spaces)/)?"
Route = Callable[..., None]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = [
    (methods, re.compile(pattern), route)
    for methods, pattern, route in (
        ("POST", "/api/repos/create", Handler.create),
        ("GET", "/api/whoami-v2", Handler.who_am_i),
        ("POST", "/api/validate-yaml", Handler.validate_yaml),
        ("POST", f"{_API}/preupload/{_REVISION}", Handler.preupload),
        ("POST", f"/{_PREFIX}{_NAME}.git/info/lfs/objects/batch", Handler.lfs_batch),
        ("PUT", f"/_lfs/upload/{_DIGEST}", Handler.lfs_upload),
        ("POST", f"/_lfs/verify/{_DIGEST}", Handler.lfs_verify),
        ("GET HEAD", f"/_cdn/{_DIGEST}", Handler.cdn),
        ("POST", f"{_API}/commit/{_REVISION}", Handler.add_commit),
        ("POST", f"{_API}/tag/{_REVISION}", Handler.add_tag),
        ("GET", f"{_API}/refs", Handler.refs),
        ("POST", f"{_API}/paths-info/{_REVISION}", Handler.paths_info),
        ("GET", f"{_API}/tree/{_REVISION}(?P<path>/.*)?", Handler.tree),
        ("GET", f"{_API}/revision/{_REVISION}", Handler.info),
        ("GET", _API, Handler.info),
        ("GET HEAD", f"/{_PREFIX}{_NAME}/resolve/{_REVISION}/(?P<path>.+)", Handler.resolve),
    )
]


@contextmanager
def serve(token: str) -> Iterator[Hub]:
    """A Hub that runs until the block ends."""
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    # Another host, as on the Hub: clients do not follow there when they ask for a file's metadata.
    hub.cdn_url = f"http://localhost:{server.server_port}/_cdn"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
