"""A picture of a page, for the README:

    python -m benchmarks.pictures.report demo/processed/report.html docs/report.png
    python -m benchmarks.pictures.report report/report.html docs/evaluation.png "What each figure is"

It ends above the heading that is named, or above the last one. Drawn by Chromium, which must be installed; a
font with emoji makes it prettier.
"""

import json
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.pictures.browser import browser, found

WIDTH = 1080
# The page's end is left out: samples are many.
HEADING = "[...document.querySelectorAll('h2')].filter(one => !{0} || one.textContent === {0}).at(-1).offsetTop"
COLOURS = 128  # of a palette: a third of the bytes, and nothing to be seen of it


def main(page: Path, target: Path, heading: str = "") -> None:
    program = found()
    if program is None:
        sys.exit("No Chromium found: install it (apt-get install chromium), or put its path into BROWSER")
    with browser(program) as opened:
        opened.show(page, width=WIDTH, scheme="light")
        height, png = opened.ask(HEADING.format(json.dumps(heading))), opened.picture()
    Image.open(BytesIO(png)).convert("RGB").crop((0, 0, WIDTH, height)).quantize(COLOURS).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
