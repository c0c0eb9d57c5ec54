"""Every file of a collection of exports by others, against what their authors expect of it.

    python -m benchmarks.extraction_samples FORMATS > benchmarks/results/extraction_samples.md

FORMATS holds a folder a platform and MANIFEST.md, whose tables say what upstream's own tests count. Where we count
otherwise, DIFFERENT says why. Files are read one by one: what two of them share is not a duplicate here.
"""

import platform
import re
import sys
from collections import Counter
from datetime import date
from pathlib import Path

from ghost.errors import ExportError
from training.extraction.platform import Kind
from training.extraction.platforms import recognise
from training.extraction.source import Source, discover

ASKED = "asked"
DIFFERENT = {
    "english_android_media.txt": "23 messages: 8 of upstream's media have a caption, which somebody wrote",
    "locale_periods.txt": "a unit test's lines of four header styles: no file has two, and a line in another style than"
    " the file's is pasted text, so its bracket line is read as a part of the message before",
    "与Alice的 WhatsApp 聊天.txt": "made up: Android writes <Media omitted>, people type “image omitted”; the line"
    " above the first header is counted",
    "dot-time-klo-format-test.txt": "a unit test's lines of two header styles, see locale_periods.txt",
    "lorem.txt": "the manifest says year first; the first number reaches 31 and the last does not pass 22",
    "test_export.txt": "the line break is kept",
    "group_quote_attachment/main.jsonl": "one of the three is a picture without words",
    "x_escape_control_chars.json": "one of the two was sent through an inline bot",
    "2025-01-18.json": "a bot's",
    "note-to-self.jsonl": "one of the three is a picture without words; the update is counted as system",
    "view_once_line.jsonl": "what was to be viewed once is counted as media",
    "exporter_blocks.txt": "two of upstream's six blocks hold no words: one deleted, one SharePlay",
    "group_2.json": "one of the two is a photo without words",
    "bot_message.json": "one object of Slack's API; no export holds such a file",
    "[LINE] Project Team types.txt": "the link is somebody's message",
}


def main() -> int:
    folder = Path(sys.argv[1])
    expected = manifest(folder / "MANIFEST.md")
    print("# Extraction on real exports by others\n\n```")
    print("python -m benchmarks.extraction_samples FORMATS\n```\n")
    print(
        f"{date.today()}, Python {platform.python_version()}. *Asked*: every date fits two orders, and the reader asked"
    )
    print("for `--date-order`; the row shows `--date-order dmy`. *Why* is our side where the two differ.\n")
    print("| file | records | messages | left out | expected by upstream | why |\n|---|---:|---:|---|---|---|")
    totals, refused, unread = Counter[Kind](), [], []
    for source in discover(sorted(path for path in folder.iterdir() if path.is_dir())):
        if isinstance(source, ExportError):
            refused.append(str(source))
            continue
        if source.is_attachment:
            continue
        name = str(source).removeprefix(f"{folder}/")
        try:
            kinds, note = count(source)
        except ExportError as error:
            refused.append(str(error).replace(f"{folder}/", ""))
            continue
        if kinds is None:
            unread.append(name)
            continue
        totals += kinds
        left = ", ".join(f"{kinds[kind]} {kind}" for kind in Kind if kinds[kind] and kind is not Kind.MESSAGE)
        why = next((why for end, why in DIFFERENT.items() if name.endswith(end)), "")
        wanted = expected.get(name, "").replace("|", "\\|")
        why = "; ".join(filter(None, (note, why)))
        print(f"| `{name}` | {kinds.total()} | {kinds[Kind.MESSAGE]} | {left} | {wanted} | {why} |")
    shown = ", ".join(f"{totals[kind]:,} {kind}" for kind in Kind)
    print(f"\n**{totals.total():,} records**: {shown}.\n\nRefused, a line each:\n")
    print("\n".join(f"- {line}" for line in refused))
    print("\nNo exports (indexes beside chats, expected results, documents), passed over or named as unknown:\n")
    print(", ".join(f"`{name}`" for name in unread))
    return 0


def manifest(path: Path) -> dict[str, str]:
    """File, relative to the folder → what upstream expects, and the headers that a reference grammar finds."""
    found: dict[str, str] = {}
    section, column, headers = "", -1, 0
    for line in path.read_text("utf-8").split("\n"):
        if line.startswith("## "):
            section, column = line[3:].strip(), -1
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "expected by upstream" in cells:
            column = cells.index("expected by upstream")
            headers = cells.index("records") if "records" in cells else 0
        elif column > 0 and len(cells) > column and (file := re.fullmatch("`(.+)`", cells[0])):
            records = f"{cells[headers]} records" if headers and cells[headers] else ""
            found[f"{section}/{file[1]}"] = "; ".join(filter(None, (records, cells[column])))
    return found


def count(source: Source) -> tuple[Counter[Kind] | None, str]:
    """The kinds of a file's records (None for no export), and whether its dates had to be asked about."""
    recognised = recognise(source)
    if recognised is None:
        return None, ""
    try:
        return Counter(record.kind for record in recognised.platform.read(source, None).records), ""
    except ExportError as error:
        if "--date-order" not in str(error):
            raise
        return Counter(record.kind for record in recognised.platform.read(source, "dmy").records), ASKED


if __name__ == "__main__":
    sys.exit(main())
