"""The index files of a Slack export: who is behind an id, and which conversation a folder holds."""

import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from training.extraction.platform import Chat
from training.extraction.slack.text import Names
from training.extraction.source import Source, companion, objects, well_formed

ID = re.compile("[CDG][A-Z0-9]{7,}")
INDEXES = {"channels": "channel", "groups": "private channel", "dms": "direct messages", "mpims": "group messages"}


class Workspace(NamedTuple):
    """team is the workspace's id. folders: what a folder's name, or the id that it may be instead, stands for."""

    team: str
    names: Names
    folders: Mapping[str, tuple[Chat, str]]
    fact: str

    def chat(self, folder: str) -> tuple[Chat, str]:
        """The conversation in a folder, and its sort in words."""
        if folder in self.folders:
            return self.folders[folder]
        key = folder if ID.fullmatch(folder) else f"{self.team} {folder}"
        return Chat(key, folder, is_id=True), "of a sort that no index file tells"


def workspace_of(source: Source) -> Workspace:
    """The workspace that a day's file belongs to. An export's files come one after the other: the last is kept."""
    if source.member:
        folder = posixpath.dirname(posixpath.dirname(source.member))
        users = Source(source.path, posixpath.join(folder, "users.json"))
    else:
        users = Source(source.path.absolute().parent.parent / "users.json")
    try:
        changed = users.path.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read(users, changed)


def user_name(user: Mapping[str, Any]) -> str:
    """The name that Slack shows, of a row of users.json or the profile in a message; empty where there is none."""
    profile = user.get("profile")
    for holder in (profile, user):
        if isinstance(holder, dict):
            for key in ("display_name", "real_name", "name"):
                if name := str(holder.get(key) or "").strip():
                    return well_formed(name)
    return ""


@lru_cache(maxsize=1)
def _read(users_json: Source, changed: int) -> Workspace:
    """`changed`, when the file was written, keeps a second run from the first one's names."""
    users = objects(companion(users_json.sibling("users.json")))
    names = {str(user.get("id")): name for user in users if (name := user_name(user))}
    rows = {index: objects(companion(users_json.sibling(f"{index}.json"))) for index in INDEXES}
    owner = _owner(rows["dms"])
    folders: dict[str, tuple[Chat, str]] = {}
    channels: dict[str, str] = {}
    for index, kind in INDEXES.items():
        for row in rows[index]:
            key, name = str(row.get("id") or ""), str(row.get("name") or "")
            people = index in ("dms", "mpims") and _people(row, owner, names)
            chat = Chat(key or name, well_formed(people or name or key), is_id=True)
            for folder in filter(None, (key, name)):
                folders[folder] = chat, kind
            if key and name:
                channels[key] = well_formed(name)
    team = next((str(user["team_id"]) for user in users if user.get("team_id")), "")
    fact = f"{len(names):,} people in users.json" if users else "no readable users.json: ids stand for names"
    return Workspace(team, Names(names, channels), folders, fact)


def _members(row: Mapping[str, Any]) -> list[str]:
    members = row.get("members")
    return list(dict.fromkeys(map(str, members))) if isinstance(members, list) else []


def _owner(dms: list[dict[str, Any]]) -> str:
    """Whose export it is: nothing says so, but only that person is in each of several direct conversations."""
    pairs = {frozenset(members) for dm in dms if (members := _members(dm))}
    common = frozenset.intersection(*pairs) if len(pairs) > 1 else frozenset()
    return next(iter(common)) if len(common) == 1 else ""


def _people(row: Mapping[str, Any], owner: str, names: Mapping[str, str]) -> str:
    members = _members(row)
    others = [member for member in members if member != owner] or members
    return ", ".join(names.get(member, member) for member in others)
