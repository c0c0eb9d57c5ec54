"""What a caller should get of what a model drew, computed the slow way and apart from the code that it judges.

Written from the format's rules: a reply is the text before the stop sequence that is complete first, of two that are
complete at once the longer; a line after the first loses one space where after all its spaces comes a label, a `<` or
nothing; white space at both ends is dropped.
"""

LABELS = ("A:", "B:")


def cut(text: str, stops: list[str]) -> str:
    """Character by character."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


def unescape(text: str) -> str:
    lines = text.split("\n")
    for number in range(1, len(lines)):
        rest = lines[number].lstrip(" ")
        if lines[number].startswith(" ") and (rest == "" or rest[0] == "<" or rest[:2] in LABELS):
            lines[number] = lines[number][1:]
    return "\n".join(lines)


def reply(text: str, stops: list[str], *, ended: bool = True) -> str:
    """`ended`: by a stop or by itself; else cut at the limit, perhaps in the beginning of a stop."""
    found = cut(text, stops)
    if not ended and found == text:
        beginnings = [text[at:] for at in range(len(text)) if any(stop.startswith(text[at:]) for stop in stops)]
        found = text.removesuffix(beginnings[0]) if beginnings else text
    return unescape(found).strip()


def decode(tokens: list[bytes]) -> str:
    """UTF-8; bytes that are no character say nothing."""
    return b"".join(tokens).decode(errors="ignore")
