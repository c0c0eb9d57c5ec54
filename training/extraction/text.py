"""Text as it goes into the CSV: what the person wrote, with only the transport's damage undone."""

import re

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def line_breaks(text: str) -> str:
    """CRLF and CR become LF: how a line break is stored is the phone's choice, that there is one is the writer's."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def well_formed(text: str) -> str:
    """JSON can hold half of a surrogate pair, UTF-8 cannot: join what belongs together, mark what is cut."""
    if LONE_SURROGATE.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printable(name: str) -> str:
    """A file's name as text: on disk it is bytes, and bytes that are not UTF-8 reach Python as lone surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
