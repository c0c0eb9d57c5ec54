"""A terminal's text as an SVG: ghost demo | python benchmarks/pictures/terminal.py docs/demo.svg "make demo"

Coloured by line: rules bold, commands cyan, replies green. No web font, so that reading the README calls nobody.
"""

import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import MONOKAI

WIDTH = 112


def main(target: Path, title: str) -> None:
    console = Console(record=True, width=WIDTH, file=StringIO(), markup=False, highlight=False, emoji=False)
    reply = False
    for line in sys.stdin.read().splitlines():
        reply = line.startswith("  A: ") or (reply and line.startswith("     "))
        style = "bold" if line.startswith("──") else "cyan" if line.startswith("$ ") else "green" if reply else None
        console.print(line, style=style, overflow="ellipsis", no_wrap=True)
    write(console, target, title)


def write(console: Console, target: Path, title: str) -> None:
    """What a console recorded."""
    local = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    target.write_text(
        console.export_svg(title=title, theme=MONOKAI, code_format=local, unique_id=target.stem), encoding="utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
