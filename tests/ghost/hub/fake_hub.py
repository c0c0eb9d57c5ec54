"""A Hub of our own on the loopback: the calls that push and pull make, spoken over real HTTP, with faults on request.

It keeps to what huggingface_hub 2.4 sends and reads: whoami, repos/create, model info, tree, preupload, LFS batch (one
part or several), LFS upload and verification, commit, tags, refs, and resolve with its redirect to a store on another
host, which must not see the token.
"""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.ghost.hub.fake_repos import TOKEN, USER, Commit, Fault, Repo
from tests.loopback_server import LoopbackServer, QuietHandler, due


class FakeHub(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.repos: dict[str, Repo] = {}
        self.store: dict[str, bytes] = {}  # LFS objects by the SHA-256 that was claimed for them
        self.faults: list[Fault] = []
        self.seen: list[str] = []  # "METHOD /path" in order
        self.tokens: list[tuple[str, str | None]] = []  # host, authorization
        self.ranges: list[str | None] = []  # of files in LFS, as asked for
        self.received = 0  # bytes of LFS content
        self.role = "write"
        self.new_repos_are_private = True
        self.part_size: int | None = None
        self.ignores: set[str] = set()
        self.start()

    @property
    def store_url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def fault(self, request: str) -> Fault | None:
        return due(self.faults, request)

    def count(self, where: str) -> int:
        return sum(bool(re.search(where, request)) for request in self.seen)

    def content(self, repo: str, name: str, revision: str = "main") -> bytes:
        commit = self.repos[repo].at(revision)
        assert commit is not None
        found = commit.files[name]
        return self.store[found] if isinstance(found, str) else found


class Handler(QuietHandler):
    server: FakeHub

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_HEAD = do_GET

    def answer(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        hub.seen.append(request)
        hub.tokens.append((self.headers["Host"], self.headers["Authorization"]))
        fault = hub.fault(request)
        self.what = fault.what if fault else None
        if self.what == "cut" and self.command in {"PUT", "POST"}:
            self.rfile.read(10)
            return self.hang_up()
        self.body = self.read_body()
        if fault and isinstance(fault.what, int):
            return self.json(fault.body, fault.what, **fault.headers)
        if self.what == "page":
            return self.send(b"<html>Please accept the terms of this hotel</html>", kind="text/html")
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, request):
                return getattr(self, method)(*found.groups())
        return self.json({"error": f"the fake Hub has no {request}"}, 501)

    def read_body(self) -> bytes:
        if self.headers["Transfer-Encoding"] == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    # What is sent back

    def send(self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        if self.what == "lost":
            return self.hang_up()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.what == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self.what == "cut":
            self.wfile.write(body[: len(body) // 2])
            return self.hang_up()
        if self.command != "HEAD":
            self.wfile.write(body)
        return None

    def json(self, body: Any, status: int = 200, **headers: str) -> None:
        self.send(json.dumps(body).encode(), status, **headers)

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def repo(self, name: str) -> Repo | None:
        """The repo if this token may see it; otherwise the answer has been sent."""
        found = self.server.repos.get(name)
        if found is None or (found.private and self.headers["Authorization"] != f"Bearer {TOKEN}"):
            status = 404 if self.headers["Authorization"] else 401
            self.json({"error": "Repository not found"}, status, X_Error_Code="RepoNotFound")
            return None
        return found

    def commit_at(self, name: str, revision: str) -> Commit | None:
        repo = self.repo(name)
        if repo is None:
            return None
        commit = repo.at(revision)
        if commit is None:
            self.json({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
        return commit

    # The API

    def whoami(self) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.json({"error": "Invalid credentials in Authorization header"}, 401)
        auth = {"accessToken": {"displayName": "test", "role": self.server.role}}
        return self.json({"type": "user", "name": USER, "orgs": [], "auth": auth})

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or USER}/{asked['name']}"
        if not name.startswith(f"{USER}/"):
            return self.json({"error": "You don't have the rights to create a model under this namespace"}, 403)
        if name in self.server.repos:
            return self.json({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
        repo = Repo(private=asked.get("visibility") == "private" and self.server.new_repos_are_private)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.server.repos[name] = repo
        return self.json({"url": f"{self.server.url}/{name}"})

    def info(self, name: str, revision: str = "main") -> None:
        if commit := self.commit_at(name, revision):
            repo = self.server.repos[name]
            card = {"license": repo.licence} if repo.licence else {}
            self.json({"id": name, "modelId": name, "sha": commit.id, "private": repo.private, "cardData": card})

    def tree(self, name: str, revision: str) -> None:
        if commit := self.commit_at(name, revision):
            self.json([self.entry(path, found) for path, found in sorted(commit.files.items())])

    def entry(self, path: str, found: bytes | str) -> dict[str, Any]:
        """A file in LFS has the hash of what the store really holds, whatever was claimed."""
        if isinstance(found, bytes):
            return {"type": "file", "path": path, "size": len(found), "oid": _git_id(found)}
        held = self.server.store[found]
        lfs = {"oid": hashlib.sha256(held).hexdigest(), "size": len(held), "pointerSize": 134}
        return {"type": "file", "path": path, "size": len(held), "oid": _git_id(found.encode()), "lfs": lfs}

    def refs(self, name: str) -> None:
        if repo := self.repo(name):
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in repo.tags.items()
            ]
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].id}
            self.json({"branches": [main], "converts": [], "tags": tags})

    def tag(self, name: str, revision: str) -> None:
        if commit := self.commit_at(name, revision):
            tag, tags = json.loads(self.body)["tag"], self.server.repos[name].tags
            if tag in tags:
                return self.json({"error": "Tag reference exists already"}, 409)
            tags[tag] = commit.id
            return self.json({})
        return None

    def preupload(self, name: str, revision: str) -> None:
        if self.commit_at(name, revision):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": file["path"] in self.server.ignores,
                }
                for file in json.loads(self.body)["files"]
            ]
            self.json({"files": files})

    def batch(self, name: str) -> None:
        if self.repo(name) is None:
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid, size, part = wanted["oid"], wanted["size"], self.server.part_size
            answer: dict[str, Any] = {"oid": oid, "size": size}
            held = self.server.store.get(oid)
            if held is None or hashlib.sha256(held).hexdigest() != oid:
                put = f"{self.server.store_url}/put/{oid}"
                upload: dict[str, Any] = {"href": f"{put}?X-Amz-Signature=signed"}
                if part and size > part:
                    parts = range(1, -(-size // part) + 1)
                    urls = {f"{number:05}": f"{put}/{number}?X-Amz-Signature=signed" for number in parts}
                    upload = {"href": f"{self.server.url}/complete/{oid}", "header": {"chunk_size": str(part), **urls}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.server.url}/verify"}}
            objects.append(answer)
        self.json({"transfer": "multipart", "objects": objects})

    def put(self, oid: str, part: str = "") -> None:
        body = self.body[:-1] + bytes([self.body[-1] ^ 1]) if self.what == "corrupt" else self.body
        self.what = None if self.what == "corrupt" else self.what
        self.server.received += len(body)
        self.server.store[f"{oid}/{part}" if part else oid] = body
        self.send(b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')

    def complete(self, oid: str) -> None:
        parts = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        self.server.store[oid] = b"".join(self.server.store.pop(f"{oid}/{number}") for number in parts)
        self.json({})

    def verify(self) -> None:
        asked = json.loads(self.body)
        held = self.server.store.get(asked["oid"], b"")
        self.json({}, 200 if len(held) == asked["size"] else 404)

    def validate(self) -> None:
        self.json({"errors": [], "warnings": []})

    def commit(self, name: str, revision: str) -> None:
        if not (head := self.commit_at(name, revision)):
            return None
        header, *lines = (json.loads(line) for line in self.body.splitlines())
        if header["value"].get("parentCommit", head.id) != head.id:
            return self.json({"error": "A commit has happened since. Please refresh and try again."}, 412)
        files = dict(head.files)
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "deletedFile":
                del files[value["path"]]
            elif kind == "lfsFile":
                if value["oid"] not in self.server.store:
                    return self.json({"error": "LFS pointer pointed to a file that does not exist"}, 400)
                files[value["path"]] = value["oid"]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        made = self.server.repos[name].commit(files)
        url = f"{self.server.url}/{name}/commit/{made.id}"
        return self.json({"success": True, "commitOid": made.id, "commitUrl": url, "hookOutput": ""})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if not (commit := self.commit_at(name, revision)):
            return None
        if path not in commit.files:
            return self.json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        found, facts = commit.files[path], {"X_Repo_Commit": commit.id}
        if isinstance(found, str):
            location = f"{self.server.store_url}/stored/{found}?Signature=signed"
            facts |= {"X_Linked_ETag": f'"{found}"', "X_Linked_Size": str(len(self.server.store[found]))}
            return self.send(b"", 302, Location=location, **facts)
        return self.ranged(found, ETag=f'"{_git_id(found)}"', **facts)

    def stored(self, oid: str) -> None:
        self.server.ranges.append(self.headers["Range"])
        self.ranged(self.server.store[oid])

    def ranged(self, content: bytes, **facts: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if not wanted:
            return self.send(content, kind="application/octet-stream", **facts)
        start = int(wanted[1])
        total = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(content[start:], 206, "application/octet-stream", Content_Range=total, **facts)


def _git_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"GET /api/whoami-v2", "whoami"),
    (r"POST /api/repos/create", "create"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"GET /api/models/{NAME}", "info"),
    (rf"GET /api/models/{NAME}/revision/(.+)", "info"),
    (rf"GET /api/models/{NAME}/tree/([^/]+)", "tree"),
    (rf"GET /api/models/{NAME}/refs", "refs"),
    (rf"POST /api/models/{NAME}/tag/([^/]+)", "tag"),
    (rf"POST /api/models/{NAME}/preupload/([^/]+)", "preupload"),
    (rf"POST /api/models/{NAME}/commit/([^/]+)", "commit"),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /put/(\w+)", "put"),
    (r"PUT /put/(\w+)/(\d+)", "put"),
    (r"POST /complete/(\w+)", "complete"),
    (r"POST /verify", "verify"),
    (rf"(?:GET|HEAD) /{NAME}/resolve/([^/]+)/(.+)", "resolve"),
    (r"GET /stored/(\w+)", "stored"),
]
