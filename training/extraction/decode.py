"""A text export's bytes → text, or one line that says at which byte it stops being text."""

from training.errors import ExportError
from training.extraction.source import Source


def decode(source: Source, advice: str, may_hold_nul: bool = False) -> str:
    """The whole file as text: UTF-8, or UTF-16 by its mark; line ends as they are.

    advice  what to do about a file that is neither: "save it as UTF-8"
    Raises ExportError.
    """
    with source.open() as stream:
        content = stream.read()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise ExportError(f"{source}: not {name} at byte {error.start:,}; {advice}") from None
    if "\0" in text and not may_hold_nul:
        raise ExportError(f"{source}: holds NUL bytes, so it is damaged or no text; {advice}")
    return text
