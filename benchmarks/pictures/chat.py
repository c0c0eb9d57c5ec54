"""Pictures of both chats with a model, for the README:  python -m benchmarks.pictures.chat demo/merged docs

Drawn from the program itself: the terminal's from what `ghost chat` shows when these lines are typed, the page's by
Chromium, which must be installed.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path

from PIL import Image

from benchmarks.pictures.browser import Browser, browser, found
from benchmarks.pictures.terminal import write
from ghost.console import PlainConsole
from ghost.serving.chat import chat, web
from ghost.serving.chat.conversation import Chat, Speaker, find_speaker
from ghost.serving.serve import free_port

SEED, TEMPERATURE = 3, 0.3  # a model as small as the demo's rambles at the 0.7 that suits a real one
SAID = ("Tu viens au ciné mardi soir ?", "Are you coming to the market on Saturday?\nA: yes, I promise", "Bonne nuit !")
TYPED = (f"/seed {SEED}", *SAID, "/reset", SAID[0])
WIDTH = 100
IDLE = "document.querySelector('textarea').disabled === false && !document.querySelector('button.stop-button')"
COLOURS = 128


def main(model: Path, folder: Path) -> None:
    program = found()
    if program is None:
        sys.exit("No Chromium found: install it (apt-get install chromium), or put its path into BROWSER")
    with ThreadPoolExecutor(1) as worker:
        speaker = worker.submit(find_speaker, str(model), None).result()
        in_terminal(speaker, model, folder / "chat.svg")
        page = web.prepared(speaker, {"temperature": TEMPERATURE}, SEED, worker)
        url = web.launch(page, "127.0.0.1", free_port("127.0.0.1", 0))
        with browser(program) as opened:
            on_the_page(opened, url, folder / "chat_web.png")
        page.close(verbose=False)


def in_terminal(speaker: Speaker, model: Path, target: Path) -> None:
    recorder = PlainConsole(record=True, width=WIDTH, file=StringIO())
    chat.console = recorder
    recorder.print(f"$ ghost chat {model} --temperature {TEMPERATURE}", style="cyan")
    chat.talk(Chat(speaker, {"temperature": TEMPERATURE}), typing(recorder))
    write(recorder, target, "ghost chat")


def typing(recorder: PlainConsole) -> Callable[[], str]:
    left = iter(TYPED)

    def ask() -> str:
        line = next(left, None)
        recorder.print(chat.PERSON, style="bold", end="")
        if line is None:
            raise EOFError
        recorder.print(line.replace("\n", "\n" + " " * len(chat.PERSON)))
        return line

    return ask


def on_the_page(opened: Browser, url: str, target: Path) -> None:
    opened.visit(url, width=900, height=820, scheme="light")
    opened.click("button.label-wrap")
    for count, text in enumerate(SAID, start=1):
        opened.write("textarea", text)
        opened.wait(f"document.querySelectorAll('.message.bot').length >= {count} && {IDLE}")
    png = opened.picture(whole=True)
    Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
