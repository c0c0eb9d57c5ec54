"""Who wrote, and whom they mention, under another name: `Contact N` for a phone number, or invented names for all."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from training.extraction.privacy.phone import DEFAULT_REGIONS


class People(Protocol):
    """How people are called in what is written; each answer is stable over all conversations of a run."""

    def sender(self, name: str) -> str:
        """For the sender column. The same object when the name stays."""

    def title(self, title: str) -> str:
        """For a chat's title and its file's name; of a group's title only the people in it change."""

    def body(self, text: str) -> str:
        """For a message: mentions. Call it before `Masker.mask`. The same object when nothing changes."""


class Contacts:
    """`Contact N` for every phone number or e-mail address that stands for a person: N by first meeting, the same
    number the same N however it is spelled. Names in `me` stay as senders, as `--me` must find them."""

    def __init__(self, me: Iterable[str] = (), regions: Sequence[str] = DEFAULT_REGIONS) -> None: ...

    def sender(self, name: str) -> str:
        return name

    def title(self, title: str) -> str:
        return title

    def body(self, text: str) -> str:
        return text


class Pseudonyms:
    """`--pseudonyms`: everyone but `me` gets an invented name, numbers included.

    names  every sender of the run and every title of a one-to-one chat: known before the first answer, so that an
           answer depends on the set of names and not on the order of files
    """

    def __init__(
        self, names: Iterable[str], me: Iterable[str] = (), regions: Sequence[str] = DEFAULT_REGIONS
    ) -> None: ...

    def sender(self, name: str) -> str:
        return name

    def title(self, title: str) -> str:
        return title

    def body(self, text: str) -> str:
        return text
