"""Load config/user_config.json and find which senders of a chat are you.

Names are compared whole, after Unicode normalisation and case folding. "Anto" must not match "Antoine".
"""

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Meta

from ghost import config
from ghost.errors import ConfigError
from replicate_deployment.chat_format import Labels

CONFIG = Path("config/user_config.json")
# WhatsApp wraps phone numbers and some names in invisible direction marks.
DIRECTION_MARKS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LISTED = 10  # senders shown in an error
YOURS = "YOUR NAME"  # stands in a proposed config where only the user knows which sender they are
EXAMPLE, ALIKE = "user_config.example.json", 0.85  # config.json has a ratio of 0.81, user_config.json.txt 0.89
EXTRACTION_REPORT = "extraction_report.json"
NAMES = ("exclude_people", "exclude_conversations")  # keys that hold a list of names

Mine = Mapping[str, Set[str]]
"""Platform → the senders there that are you."""


@dataclass(frozen=True)
class UserConfig:
    """user_config.json. Raises ConfigError for invalid values."""

    user_identifiers: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    """Your names, as the exports spell them: one list for all platforms, or a list for each."""
    user_label: str = "A:"
    other_label: str = "B:"
    timezone: str = "UTC"
    """IANA name. Applies to times without an offset, and to `since` and `until`."""
    exclude_people: tuple[str, ...] = ()
    """People who opted out. Their messages are dropped, on both sides of the split."""
    exclude_conversations: tuple[str, ...] = ()
    """Chats to leave out, by title or by file, such as "whatsapp/Bob.csv"."""
    exclude_messages: tuple[str, ...] = ()
    """Regular expressions; a message in which one is found, in any case, is left out of extraction and preparation."""
    since: date | None = None
    """The first day to use."""
    until: date | None = None
    """The last day to use."""
    max_group_size: Annotated[int, Meta(ge=2)] | None = None
    """Leave out chats with more people, you included."""

    def __post_init__(self) -> None:
        lists = {"user_identifiers": self.names, **{key: getattr(self, key) for key in NAMES}}
        for key, names in lists.items():
            if not all(name.strip() for name in names):
                raise ConfigError(f'{key}: a name is blank; write a list of names, as in ["Ada Lovelace"]')
        for pattern in self.exclude_messages:
            try:
                matches_everything = re.search(pattern, "")
            except re.error as error:
                raise ConfigError(f"exclude_messages: {pattern!r} is not a regular expression ({error})") from error
            if matches_everything:
                raise ConfigError(f"exclude_messages: {pattern!r} matches an empty message, and so every message")
        if self.since and self.until and self.since > self.until:
            raise ConfigError(f"since, until: {self.since} is after {self.until}, so no day is left")
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            close = difflib.get_close_matches(self.timezone, available_timezones(), n=1)
            hint = close[0] if close else "Europe/Paris"
            raise ConfigError(
                f"timezone: {self.timezone!r} is not an IANA time zone; a valid one is {hint!r}"
            ) from None
        try:
            Labels(me=self.user_label, other=self.other_label)
        except ValueError as error:
            raise ConfigError(f"user_label, other_label: {error}") from error

    @property
    def labels(self) -> Labels:
        return Labels(me=self.user_label, other=self.other_label)

    @property
    def names(self) -> tuple[str, ...]:
        """Your names on all platforms."""
        if isinstance(self.user_identifiers, Mapping):
            return tuple(dict.fromkeys(name for names in self.user_identifiers.values() for name in names))
        return self.user_identifiers

    def names_on(self, platform: str) -> tuple[str, ...]:
        if isinstance(self.user_identifiers, Mapping):
            return self.user_identifiers.get(platform, ())
        return self.user_identifiers

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)


def load(path: Path | None = None) -> UserConfig:
    """Load a user_config.json. Without a path, load the standard file, or return the defaults if it does not exist.

    Raises ConfigError, with the file, when `path` does not exist, is not JSON, or has unknown keys or invalid values.
    """
    if path is None and not CONFIG.exists():
        return UserConfig()
    return config.load(UserConfig, CONFIG.name, path)


def not_there() -> str:
    """Say that the standard file does not exist, and name a file that may have been meant: with a typo in its name,
    people who opted out would be included."""
    beside = [file for folder in (CONFIG.parent, Path()) if folder.is_dir() for file in sorted(folder.iterdir())]
    alike = [file for file in beside if fold(file.name) != fold(EXAMPLE) and _alike(file.name, CONFIG.name)]
    if not alike:
        return f"there is no {CONFIG}"
    return f"there is no {CONFIG}, but {alike[0]}. To use it: --user-config {alike[0]}"


def _alike(name: str, other: str) -> bool:
    return difflib.SequenceMatcher(None, fold(name), fold(other)).ratio() >= ALIKE


def fold(name: str) -> str:
    """Normalise a name for comparison: NFKC, case folded, single spaces, no direction marks."""
    plain = unicodedata.normalize("NFKC", DIRECTION_MARKS.sub("", name)).casefold()
    return " ".join(unicodedata.normalize("NFKC", plain).split())


def without_accents(name: str) -> str:
    """The name as people type it in haste."""
    return "".join(char for char in unicodedata.normalize("NFD", name) if not unicodedata.combining(char))


def matching(identifiers: Iterable[str], senders: Iterable[str]) -> set[str]:
    """The senders whose name equals one of the identifiers after `fold`."""
    folded = {fold(name) for name in identifiers}
    return {sender for sender in senders if fold(sender) in folded}


def platform_of(chat: str) -> str:
    """The folder in the path of a chat's CSV; "" if there is none."""
    return chat.split("/", 1)[0] if "/" in chat else ""


def owners(cleaned: Path) -> dict[str, list[str]]:
    """By platform, the account owners that extraction_report.json names; empty without a readable report."""
    found: dict[str, list[str]] = {}
    try:
        report = json.loads((cleaned / EXTRACTION_REPORT).read_text(encoding="utf-8"))
        for file in report["files"]:
            if isinstance(file.get("owner"), str):
                found.setdefault(str(file["platform"]), []).append(file["owner"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found


def recognise(
    config: UserConfig,
    me: Sequence[str],
    chats: Mapping[str, Mapping[str, int]],
    path: Path = CONFIG,
    owners: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, set[str]]:
    """By platform, the senders that are you: those named by `--me`, else by the config.

    chats   path of each chat → sender → number of messages
    owners  by platform, the account owners; used in the proposal
    Raises ConfigError, with a proposed config line, when a name of `--me` sent no message; or when none of the config's
    names did, on every platform for which the config has its own list.
    """
    if not all(name.strip() for name in me):
        raise ConfigError('--me "": name yourself as the chats spell it')
    counts = _by_platform(chats)
    if not me and isinstance(config.user_identifiers, Mapping):
        _check_platforms(config.user_identifiers, counts, path)
    problem = _unmatched(config, me, counts, path)
    if problem:
        raise ConfigError(f"{problem}\n{_advice(propose(chats, owners or {}), path)}")
    return {platform: matching(me or config.names_on(platform), senders) for platform, senders in counts.items()}


def _unmatched(config: UserConfig, me: Sequence[str], counts: Mapping[str, Counter[str]], path: Path) -> str | None:
    """Say which of your names match no sender; None if all is well."""
    for name in me:
        if not any(matching([name], senders) for senders in counts.values()):
            senders = {fold(sender): sender for platform in counts.values() for sender in platform}
            near = [f" Did you mean {senders[key]!r}?" for key in difflib.get_close_matches(fold(name), senders, n=1)]
            return f"--me {name!r} sent none of these messages.{''.join(near)}"
    if me:
        return None
    if not config.names:
        return "None of the senders is marked as you: user_identifiers is empty."
    if isinstance(config.user_identifiers, Mapping):
        for platform, names in config.user_identifiers.items():
            if names and platform in counts and not matching(names, counts[platform]):
                return f"{path}: none of user_identifiers ({', '.join(names)}) sent a message on {platform}."
    if not any(matching(config.names_on(platform), senders) for platform, senders in counts.items()):
        return f"{path}: none of user_identifiers ({', '.join(config.names)}) sent a message."
    return None


def _check_platforms(named: Iterable[str], present: Iterable[str], path: Path) -> None:
    """Refuse unknown platform names: a typo would mark nobody as you on that platform."""
    from training.extraction.platforms import PLATFORMS  # imports every reader

    known = {*PLATFORMS, *present}
    for platform in named:
        if platform not in known:
            nearest = difflib.get_close_matches(platform, sorted(known), n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"{path}: user_identifiers: unknown platform {platform!r}; the nearest valid name is {nearest!r}"
            )


@dataclass(frozen=True)
class Proposal:
    """listing      the senders with their numbers of messages, the most first
    identifiers  who is probably you: names for all platforms, or for each; YOURS where several senders could be you
    reasons      why
    certain      False if several senders could be you
    """

    listing: list[tuple[str, int]]
    identifiers: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    reasons: list[str]
    certain: bool

    @property
    def names(self) -> tuple[str, ...]:
        return UserConfig(self.identifiers).names


def propose(chats: Mapping[str, Mapping[str, int]], owners: Mapping[str, Sequence[str]]) -> Proposal:
    """List the senders and say who is probably you. `chats` and `owners` are as in `recognise`."""
    counts = _by_platform(chats)
    total = sum(counts.values(), Counter[str]())
    ranked = sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
    likely: dict[str, tuple[str, ...]] = {}
    reasons: list[str] = []
    certain = True
    for platform, senders in sorted(counts.items()):
        where = f"{platform}: " if platform else ""
        of_platform = [some for chat, some in chats.items() if platform_of(chat) == platform]
        presence = Counter(sender for some in of_platform for sender in some)
        owning = tuple(sorted(matching(owners.get(platform, ()), senders)))
        if owning:
            likely[platform] = owning
            reasons.append(f"{where}the export is the account of {', '.join(owning)}")
            continue
        candidates = sorted(presence, key=lambda sender: (-presence[sender], -senders[sender], sender))
        most = presence[candidates[0]]
        tied = [sender for sender in candidates if presence[sender] == most]
        share = f"{most:,} of {len(of_platform):,} chats"
        if len(tied) == 1:
            likely[platform] = (tied[0],)
            reasons.append(f"{where}{tied[0]} is in {share}, more than anyone else")
            continue
        likely[platform] = (YOURS,)
        certain = False
        who = ", ".join(tied) if len(tied) <= LISTED else f"{len(tied):,} people"
        reasons.append(f"{where}{who} are each in {share}: only you know which is you")
    names = UserConfig(likely).names
    one_list = all(some == names for some in likely.values()) or "" in likely
    return Proposal(ranked, names if one_list else likely, reasons, certain)


def _by_platform(chats: Mapping[str, Mapping[str, int]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for chat, senders in chats.items():
        counts.setdefault(platform_of(chat), Counter()).update(senders)
    return counts


def _advice(proposal: Proposal, path: Path) -> str:
    """The proposal in words, and what to write to the config at `path`."""
    line = f'"user_identifiers": {json.dumps(proposal.identifiers, ensure_ascii=False)}'
    where = f"this line in {path}:  {line}" if path.exists() else f"{path} with this line:  {{{line}}}"
    which = f"If you are {' and '.join(proposal.names)}" if proposal.certain else f"With your name instead of {YOURS}"
    flags = " ".join(f"--me {json.dumps(name, ensure_ascii=False)}" for name in proposal.names)
    return "\n".join(
        [
            "The senders, by messages:",
            *(f"  {count:>9,}  {sender}" for sender, count in proposal.listing[:LISTED]),
            *([f"  and {more:,} more"] if (more := len(proposal.listing) - LISTED) > 0 else []),
            *proposal.reasons,
            f"{which}, write {where}",
            "(list every name under which you appear)",
            f"or pass it by flag:  {flags}",
        ]
    )
