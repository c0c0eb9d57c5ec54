"""Text as it goes into the CSV: what the person wrote, with only the transport's damage undone."""

import re

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def line_breaks(text: str) -> str:
    """CRLF and CR become LF: how a line break is stored is the phone's choice, that there is one is the writer's."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def well_formed(text: str) -> str:
    """JSON can hold half of a surrogate pair, UTF-8 cannot: join what belongs together, mark what is cut."""
    if LONE_SURROGATE.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printable(name: str) -> str:
    """A file's name as one line of text.

    On disk it is bytes, and bytes that are not UTF-8 reach Python as lone surrogates; it may also hold line breaks and
    the escapes that move a terminal's cursor. Each of these becomes U+FFFD.
    """
    return CONTROL.sub("\ufffd", name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
