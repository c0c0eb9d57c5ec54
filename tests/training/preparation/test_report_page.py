"""report.html: what stands on it, and how a real browser shows it, on a phone and on a desk, light and dark."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.pictures import browser
from replicate_deployment.chat_format import Recipe
from tests.training.preparation.test_dataset import NOON, write_csv
from training.extraction.speakers import UserConfig
from training.preparation import dataset as chats
from training.preparation import report, report_page
from training.preparation.checks import Concern
from training.preparation.dataset import Prepared
from training.preparation.privacy import Kept
from training.preparation.report_page import CHATS, Timeline, page

SCRIPT = "<script>document.title = 'hacked'; fetch('https://example.org/')</script>"
HEBREW = "שלום, מה שלומך? OK"
NASTY = [
    SCRIPT,
    HEBREW,
    "x" * 400,
    "https://example.org/" + "a/" * 100,
    "👩‍👩‍👧‍👦" * 30,
    "<img src=x onerror=alert(1)>",
]
CHAT = "<b>Zoé</b> & " + "long name " * 20


def prepared(folder: Path, recipe: Recipe = "windows") -> Prepared:
    config = UserConfig(user_identifiers=("Ada",))
    messages = chats.read(folder, config.zone)
    return Prepared.of(config, recipe, messages, messages.table, {"Ada"})


def made(data: Prepared, concerns: list[Concern] | None = None, left_out: int = 0) -> str:
    sizes = {str(path): some["sender"].nunique() for path, some in data.table.groupby("path", observed=True)}
    kept = Kept(data.table, np.zeros(len(data.table), bool), {"dates": {"messages": left_out}}, sizes)
    found = report.make(data, kept, None, 1024)
    return page(data, found.figures | {"concerns": [asdict(concern) for concern in concerns or []]})


def write_chats(folder: Path, *, chats: int, talks: int, days: int, texts: list[str]) -> None:
    """Chats of `talks` conversations, one every `days` days: others and Ada in turn, one message a turn."""
    for chat in range(chats):
        rows = []
        for talk in range(talks):
            for turn in range(8):
                time = NOON + timedelta(days=talk * days, hours=chat % 20, minutes=4 * turn)
                sender = "Ada" if turn % 2 else f"Bea {turn % 3}"
                rows.append((time.isoformat(), sender, texts[(talk + turn) % len(texts)]))
        write_csv(folder / "whatsapp" / f"{CHAT.replace('/', '')[:80]} {chat}.csv", rows)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("cleaned")
    write_chats(folder, chats=CHATS + 3, talks=12, days=40, texts=NASTY)
    return prepared(folder)


def test_messages_and_names_are_text(nasty: Prepared) -> None:
    html = made(nasty, [Concern("x", "5% <of> all")])
    assert "<script" not in html
    assert "<img" not in html
    assert "5% &lt;of&gt; all" in html
    shown = unescape(re.sub(r"<[^>]*>", "", html))
    for text in NASTY:
        assert text[: report_page.LONGEST] in shown
    assert html.count('<article class="card">') == report_page.SAMPLES
    assert "3 more chats" in shown


def test_it_is_the_same_every_time_and_small(nasty: Prepared, tmp_path: Path) -> None:
    assert made(nasty) == made(nasty)
    write_chats(tmp_path, chats=CHATS, talks=120, days=30, texts=["😀" * 500, "oui"])
    assert len(made(prepared(tmp_path)).encode()) < 200_000


def test_the_figures_are_said_in_words(tmp_path: Path) -> None:
    write_chats(tmp_path, chats=1, talks=10, days=1, texts=["ça va ?", "bien et toi, tu fais quoi ce soir ?"])
    html = made(prepared(tmp_path), left_out=1234)
    shown = unescape(re.sub(r"<[^>]*>", "", html))
    # Of the eight turns of each conversation its one window holds six, and no seed was drawn from the last two.
    assert "60 of 80 messages in 1 chat from 2024-03-01 to 2024-03-10, of which you wrote 30 as Ada." in shown
    assert "The first 9 conversations train, the 1 after them validate" in shown
    assert "100% of the messages are from 1 group" in shown
    assert "Your settings leave out 1,234 more messages." in shown
    assert "These figures give no reason not to train" in shown
    assert "<title>2024-03-04: 4 of yours</title>" in html


def test_both_recipes_have_samples(tmp_path: Path) -> None:
    write_chats(tmp_path, chats=1, talks=10, days=1, texts=["salut"])
    windows, whole = (made(prepared(tmp_path, recipe)) for recipe in ("windows", "conversations"))
    assert windows.count('class="mine target"') == report_page.SAMPLES
    assert whole.count('class="mine target"') == 4 * report_page.SAMPLES
    assert 'class="mine"' not in whole


def test_the_end_of_a_single_conversation_validates(tmp_path: Path) -> None:
    write_chats(tmp_path, chats=1, talks=1, days=1, texts=["salut"])
    html = made(prepared(tmp_path))
    assert "The first 1 conversations train, the 1 after them validate" in html
    assert "its two parts count as two conversations" in html
    assert 'class="mark"' in html


def test_where_nothing_can_be_held_out_nothing_validates(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [((NOON + timedelta(minutes=n)).isoformat(), ["Bea", "Ada"][n], "x") for n in (0, 1)])
    html = made(prepared(tmp_path))
    assert "The first 1 conversations train, the 0 after them validate" in html
    assert 'class="mark"' not in html


def test_somebody_who_talks_to_nobody_is_drawn_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "notes.csv", [((NOON + timedelta(days=n)).isoformat(), "Ada", "lait") for n in range(20)])
    assert "half of those of others at most 0" in made(prepared(tmp_path, "conversations"))


def test_a_long_turn_and_a_long_conversation_are_cut_and_say_so(tmp_path: Path) -> None:
    texts = [("Ada" if turn % 2 else "Bea", "y" * (report_page.LONGEST + 1234)) for turn in range(40)]
    rows = [((NOON + timedelta(minutes=4 * n)).isoformat(), *row) for n, row in enumerate(texts)]
    write_csv(tmp_path / "a.csv", rows)
    html = made(prepared(tmp_path, "conversations"))
    assert html.count("y… (1,234 more characters)") == report_page.TURNS
    assert "after 23 more turns" in html  # the last four of the forty are held out


@pytest.mark.parametrize(
    ("months", "ticks"),
    [(1, ["2024-03-01", "2024-03-09"]), (12, ["2024-03", "2024-06"]), (90, ["2025", "2027"])],
)
def test_a_time_line_has_few_labels(months: int, ticks: list[str], tmp_path: Path) -> None:
    write_chats(tmp_path, chats=1, talks=months + 1, days=30, texts=["salut"])
    data = prepared(tmp_path)
    timeline = Timeline.of(data.table["instant"], data.config.zone)
    assert list(timeline.ticks.values())[:2] == ticks
    assert len(timeline.ticks) <= 4
    assert sum(timeline.count(data.table["instant"])) == len(data.table)
    shares = timeline.shares([talk.start for talk in data.conversations])
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] < 1


program = browser.found()
in_a_browser = pytest.mark.skipif(program is None, reason="no Chromium or Chrome on PATH, nor in BROWSER")


@pytest.fixture(scope="module")
def opened() -> Iterator[browser.Browser]:
    assert program is not None
    with browser.browser(program) as one:
        yield one


@pytest.fixture(scope="module")
def on_disk(nasty: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("processed") / "report.html"
    file.write_text(made(nasty, [Concern("x", "a-word-without-end" * 20)]), encoding="utf-8")
    return file


# Labels and names may hang out of their card or run over one another without the page growing.
WORDS = """const words = one => { const range = document.createRange(); range.selectNodeContents(one);
                               return range.getBoundingClientRect(); };"""
HANGING_OUT = f"""(() => {{ {WORDS}
  const out = one => (box => box.right > one.closest("figure, .card").getBoundingClientRect().right + 1);
  const boxes = [...document.querySelectorAll(".bars li, .strips li, .chat p, dd, figcaption")]
    .filter(one => out(one)(one.getBoundingClientRect()));
  const labels = [...document.querySelectorAll(".axis span, .ticks span")].filter(one => out(one)(words(one)));
  return boxes.length + labels.length; }})()"""
OVERLAPPING = f"""(() => {{ {WORDS}
  return [...document.querySelectorAll(".plot, .strips")].filter(plot => {{
    const boxes = [...plot.querySelectorAll(".axis span, .ticks span")].map(words);
    return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right
                                                     && a.top < b.bottom && b.top < a.bottom));
  }}).length; }})()"""
LABELS = "[...document.querySelectorAll('.axis span, .ticks span')]"
# What fonts there are differs from machine to machine. The widest in use are a fifth wider than the narrowest.
WIDER = "document.body.style.letterSpacing = '{}em'"


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_a_browser_shows_it_whole_and_asks_nobody(
    opened: browser.Browser, on_disk: Path, width: int, scheme: str
) -> None:
    opened.requested.clear()
    opened.complaints.clear()
    opened.show(on_disk, width=width, scheme=scheme)
    assert opened.requested == [on_disk.as_uri()]
    assert opened.complaints == []
    assert opened.ask("innerWidth") == width
    assert opened.ask(f"{LABELS}.length") > 20
    assert opened.ask(f"Math.min(...{LABELS}.map(one => parseFloat(getComputedStyle(one).fontSize)))") >= 11
    for spacing in (0, -0.05, 0.1, 0.2):
        opened.ask(WIDER.format(spacing))
        assert opened.ask("document.documentElement.scrollWidth") <= width
        assert opened.ask(HANGING_OUT) == 0
        assert opened.ask(OVERLAPPING) == 0
    assert opened.ask("document.title") == "What your ghost will learn from"
    assert opened.ask("document.scripts.length") == 0
    ground, colours = _colours(opened.picture(whole=False))
    assert (sum(ground) > 600) == (scheme == "light")
    assert colours > 50, "not blank"


@in_a_browser
def test_a_message_from_right_to_left_is_shown_so(opened: browser.Browser, on_disk: Path) -> None:
    opened.show(on_disk, width=360, scheme="light")
    bubble = f"[...document.querySelectorAll('.chat p')].find(one => one.textContent.startsWith('{HEBREW[:4]}'))"
    assert opened.ask(f"getComputedStyle({bubble}).direction") == "rtl"


@in_a_browser
def test_it_prints_on_several_pages(opened: browser.Browser, on_disk: Path) -> None:
    opened.show(on_disk, width=1280, scheme="dark")
    paper = opened.paper()
    assert paper.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 12


def _colours(png: bytes) -> tuple[tuple[int, ...], int]:
    """The commonest colour, and how many there are."""
    from PIL import Image

    found: Any = Image.open(BytesIO(png)).convert("RGB").getcolors(maxcolors=2**24)
    return max(found)[1], len(found)
