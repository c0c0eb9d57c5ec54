"""A chat with the demo's ghost on Telegram, and a draft to approve: python -m benchmarks.pictures.bot demo/merged

The bot talks to Cog's own server and to the Bot API of the tests, on this machine. Every word in the pictures, and in
benchmarks/results/bot_transcript.md, is what that API was sent; only the frame around it is drawn, by Chromium.
"""

import html
import sys
import tempfile
import time
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.pictures.browser import browser, found
from ghost.serving.serve import running_server
from telegram_bot.config import Drafts, Inputs, Typing
from tests.telegram_bot.conftest import FRIEND, OWNER, PEER, World
from tests.telegram_bot.fake_bot_api import FakeBotAPI, Sent
from tests.telegram_bot.fake_model import FakeModel

TRANSCRIPT = Path("benchmarks/results/bot_transcript.md")
SAID = ("Salut ! Tu viens au ciné mardi soir ?", "Are you coming to the market on Saturday?", "Ok. Bonne nuit !")
ASKED = "Tu peux ramener le livre demain ?"
EDITED = "oui promis 📚"
WIDTH, COLOURS, GAP = 460, 128, 0.6
STYLE = """
body { margin: 0; padding: 14px; width: 432px; background: #d5e0cf; font: 15px/1.35 system-ui, sans-serif; color: #111 }
h1 { margin: -14px -14px 12px; padding: 10px 16px; background: #fff; font-size: 15px }
h1 small { display: block; color: #789; font-weight: normal }
p { margin: 4px 0; padding: 7px 11px; max-width: 78%; width: fit-content; border-radius: 13px; background: #fff;
    white-space: pre-wrap; overflow-wrap: anywhere }
p.mine { margin-left: auto; background: #e3fdc8 }
p.first { margin-top: 12px }
div { display: flex; gap: 4px; width: 78%; margin-bottom: 6px }
div span { flex: 1; padding: 6px 2px; text-align: center; border-radius: 8px; background: #8aa68a; color: #fff }
body > small { display: block; margin: 10px; text-align: center; color: #465 }
"""


class Line(NamedTuple):
    mine: bool | None  # None: what is told about the conversation, and said by nobody
    text: str
    buttons: tuple[str, ...] = ()


def main(model: Path) -> None:
    program = found()
    if program is None:
        sys.exit("No Chromium found: install it (apt-get install chromium), or put its path into BROWSER")
    api, unused = FakeBotAPI(), FakeModel()
    api.names.update({OWNER: "Lou", FRIEND: "Malo", PEER: "Ines"})
    with tempfile.TemporaryDirectory() as folder, running_server(model) as url:
        world = World(api, unused, Path(folder))
        world.set(
            backend=url,
            inputs=Inputs(temperature=0.3),
            typing=Typing(),
            debounce_seconds=0.3,
            waking_seconds=60.0,
            drafts=Drafts(chats=[PEER]),
        )
        with world.bot():
            talk = conversation(world)
            offered, approved = draft(world)
        with browser(program) as opened:
            for title, lines, target in (
                ("Lou's ghost<small>bot</small>", talk, Path("docs/bot_chat.png")),
                ("Your ghost<small>bot</small>", offered, Path("docs/bot_draft.png")),
            ):
                page = Path(folder, "page.html")
                page.write_text(drawn(title, lines), encoding="utf-8")
                opened.show(page, width=WIDTH, scheme="light")
                height, png = opened.ask("document.documentElement.offsetHeight"), opened.picture()
                picture = Image.open(BytesIO(png)).convert("RGB").crop((0, 0, WIDTH, height))
                picture.quantize(COLOURS).save(target, optimize=True)
    TRANSCRIPT.write_text(transcript(talk, approved), encoding="utf-8")
    for server in (api, unused):
        server.shutdown()
        server.server_close()


def conversation(world: World) -> list[Line]:
    lines: list[Line] = []
    for said in SAID:
        before = len(world.api.sent)
        lines.append(Line(True, said))
        world.api.say(FRIEND, said)
        lines += [Line(False, sent.text) for sent in settled(world, before)]
    before = len(world.api.sent)
    lines.append(Line(True, "/status"))
    world.api.say(FRIEND, "/status")
    return lines + [Line(False, sent.text) for sent in settled(world, before)]


def settled(world: World, before: int) -> list[Sent]:
    """What was sent since, once all that was planned is."""
    waiting = "SELECT (SELECT count(*) FROM messages WHERE pending)"
    waiting += " + (SELECT count(*) FROM outgoing WHERE state IN ('planned', 'sending'))"
    world.api.until(lambda: len(world.api.sent) > before)
    while time.sleep(GAP) or world.value(waiting):
        pass
    return world.api.sent[before:]


def draft(world: World) -> tuple[list[Line], list[Line]]:
    """What the owner sees before a press, and the whole of it."""
    api = world.api
    api.connect("connection", OWNER)
    before = len(api.sent)
    api.say_in_business("connection", PEER, PEER, ASKED)
    (offer,) = settled(world, before)
    shown = Line(False, offer.text, tuple(button["text"] for button in offer.buttons))
    before = len(api.sent)
    api.press(OWNER, offer, "Edit")
    (question,) = settled(world, before)
    before = len(api.sent)
    api.say(OWNER, EDITED, reply_to_message=api.shown(question))
    (again,) = settled(world, before)
    offered = [
        shown,
        Line(None, f"Edit is pressed: the draft becomes “{offer.text}”"),
        Line(False, question.text),
        Line(True, EDITED),
        Line(False, again.text, tuple(button["text"] for button in again.buttons)),
    ]
    before = len(api.sent)
    api.press(OWNER, again, "Send")
    sent = settled(world, before)
    return offered, [*offered, *(Line(False, f"(to {api.names[one.chat]}) {one.text}") for one in sent)]


def drawn(title: str, lines: list[Line]) -> str:
    parts = [f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><h1>{title}</h1>"]
    before = None
    for line in lines:
        if line.mine is None:
            parts.append(f"<small>{html.escape(line.text)}</small>")
            continue
        kind = ("mine" if line.mine else "") + (" first" if line.mine != before else "")
        parts.append(f'<p class="{kind}">{html.escape(line.text)}</p>')
        if line.buttons:
            parts.append("<div>" + "".join(f"<span>{button}</span>" for button in line.buttons) + "</div>")
        before = line.mine
    return "".join(parts)


def transcript(talk: list[Line], approved: list[Line]) -> str:
    def told(lines: list[Line], writer: str) -> str:
        rows = []
        for line in lines:
            text = line.text.replace("\n", "\n" + 8 * " ").replace(8 * " " + "\n", "\n")
            buttons = f"\n        [{'] ['.join(line.buttons)}]" if line.buttons else ""
            name = {True: writer, False: "bot", None: "--"}[line.mine]
            rows.append(f"{name:<8}{text}{buttons}")
        return "```\n" + "\n".join(rows) + "\n```"

    return (
        "\n\n".join(
            [
                "# A conversation with the bundled sample's ghost",
                "```\npython -m benchmarks.pictures.bot demo/merged\n```",
                f"{date.today()}. `ghost bot` between the local Bot API of the tests and Cog's own server, on the "
                "model that `make demo` trains (5.5 million parameters: the style is the invented person's, the sense "
                "is not), at temperature 0.3. Each line of the bot's is a message of its own.",
                told(talk, "Malo"),
                f'A draft: Ines writes "{ASKED}" to the owner, who is offered a reply, edits it, and presses Send.',
                told(approved, "owner"),
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
