"""Whose voice this is: config/user_config.json, and which senders of a chat are that person.

Names are compared whole, after Unicode normalisation and case folding. Never by a part: "Anto" must not claim
"Antoine".
"""

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from replicate_deployment.chat_format import Labels
from training.errors import ConfigError

CONFIG = Path("config/user_config.json")
# WhatsApp wraps phone numbers and some names in direction marks, which nobody sees and nobody types.
DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LISTED = 10  # senders shown in an error


@dataclass(frozen=True)
class UserConfig:
    """user_config.json. Raises ConfigError where a value cannot be used."""

    user_identifiers: tuple[str, ...] = ()
    """Your names, as the exports spell them."""
    user_label: str = "A:"
    other_label: str = "B:"
    timezone: str = "UTC"
    """IANA name; places the times that an export gives without an offset."""

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name.strip() for name in self.user_identifiers):
            raise ConfigError("user_identifiers: a list of names, none of them blank")
        try:
            ZoneInfo(self.timezone)
        except (TypeError, ValueError, OSError, ZoneInfoNotFoundError):
            close = difflib.get_close_matches(str(self.timezone), available_timezones(), n=1)
            hint = close[0] if close else "Europe/Paris"
            raise ConfigError(f"timezone: {self.timezone!r} is no IANA time zone; a valid one is {hint!r}") from None
        try:
            Labels(me=self.user_label, other=self.other_label)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"user_label, other_label: {error}") from error

    @property
    def labels(self) -> Labels:
        return Labels(me=self.user_label, other=self.other_label)

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


def load(path: Path = CONFIG) -> UserConfig:
    """The settings of a user_config.json; the defaults when the standard one is absent.

    Raises ConfigError, naming the file, on unreadable JSON, unknown keys and values that cannot be used.
    """
    if path == CONFIG and not path.exists():
        return UserConfig()
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: one JSON object is expected, found a {type(document).__name__}")
    valid = [field.name for field in fields(UserConfig)]
    for key in document:
        if key not in valid:
            nearest = difflib.get_close_matches(key, valid, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{path}: unknown key {key!r}; the nearest valid name is {nearest!r}")
    identifiers = document.get("user_identifiers", [])
    if not isinstance(identifiers, list):
        raise ConfigError(f'{path}: user_identifiers: a list of names is expected, as in ["Ada Lovelace"]')
    try:
        return UserConfig(**{**document, "user_identifiers": tuple(identifiers)})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def fold(name: str) -> str:
    """The form in which two spellings of one name are equal: NFKC, caseless, single spaces, no direction marks."""
    plain = unicodedata.normalize("NFKC", DIRECTION_MARKS.sub("", name)).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def matching(identifiers: Iterable[str], senders: Iterable[str]) -> set[str]:
    """The senders that are called exactly like one of the identifiers."""
    folded = {fold(name) for name in identifiers}
    return {sender for sender in senders if fold(sender) in folded}


def recognise(config: UserConfig, me: list[str], counts: Mapping[str, int], path: Path = CONFIG) -> set[str]:
    """The senders that are the person: those named by `--me`, else by the config.

    `counts` maps each sender to their number of messages. A name of `--me` is typed for these very chats, so each
    must be found; a config lists every spelling of every platform, so one is enough. Raises ConfigError, listing
    the senders, when that fails.
    """
    unknown = [name for name in me if not matching([name], counts)]
    if unknown:
        raise ConfigError(f"--me {unknown[0]!r} sent none of these messages. {_proposal(counts, path)}")
    if not me and not config.user_identifiers:
        raise ConfigError(f"nobody is {config.user_label} yet: user_identifiers is empty. {_proposal(counts, path)}")
    mine = matching(me or config.user_identifiers, counts)
    if not mine:
        names = ", ".join(config.user_identifiers)
        raise ConfigError(f"{path}: none of user_identifiers ({names}) sent a message. {_proposal(counts, path)}")
    return mine


def _proposal(counts: Mapping[str, int], path: Path) -> str:
    ranked = sorted(counts, key=lambda sender: (-counts[sender], sender))
    listing = [f"  {counts[sender]:>9,}  {sender}" for sender in ranked[:LISTED]]
    if len(ranked) > LISTED:
        listing.append(f"  and {len(ranked) - LISTED:,} more")
    line = f'"user_identifiers": {json.dumps(ranked[:1], ensure_ascii=False)}'
    where = f"this line in {path}:  {line}" if path.exists() else f"{path} with this line:  {{{line}}}"
    me = json.dumps(ranked[0], ensure_ascii=False)
    return "\n".join(
        [
            "The senders, by messages:",
            *listing,
            f"If you are the first of them, write {where}",
            "(a list: put every name under which you appear)",
            f"or say it for this run, a --me for each name:  ghost prepare --me {me}",
        ]
    )
