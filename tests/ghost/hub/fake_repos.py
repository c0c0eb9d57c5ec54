"""What the fake Hub holds, and what goes wrong there on request."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

TOKEN = "hf_SecretOfTheTests0123456789"
USER = "noa"


@dataclass
class Fault:
    """The next `times` requests that match `where` ("METHOD /path", a regular expression; `skip` are let through) end
    in `what`: an HTTP status, or

    cut      the connection is closed, in the middle of the body if the answer has one
    lost     the request is served, and the connection closed instead of an answer
    corrupt  a byte of what is sent or stored is another one
    page     200 and a proxy's page of HTML
    """

    where: str
    what: int | str
    times: int = 1
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


@dataclass
class Commit:
    id: str
    files: dict[str, bytes | str]  # content, or the SHA-256 of a file in LFS


@dataclass
class Repo:
    private: bool
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    licence: str | None = None

    def commit(self, files: dict[str, bytes | str]) -> Commit:
        seed = json.dumps([len(self.commits), sorted(files)]).encode()
        self.commits.append(Commit(hashlib.sha1(seed).hexdigest(), files))
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, revision)
        found = [commit for commit in self.commits if commit.id == wanted]
        return self.commits[-1] if wanted == "main" else found[0] if found else None
