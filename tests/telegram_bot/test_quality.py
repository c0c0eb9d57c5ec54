"""Broken replies are not sent, and what was sent is counted and held against the person's own variation."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ghost import cli
from ghost.demo.people import NOA, Person
from ghost.errors import BotError, ConfigError
from ghost.evaluation import style
from replicate_deployment.chat_format import Turn
from telegram_bot import bot, intake, quality
from telegram_bot.config import BotConfig, Checks, Limits
from telegram_bot.database import Database
from telegram_bot.texts import Texts
from tests.ghost.demo.another import ROMY
from tests.ghost.evaluation.invented import exchanges
from tests.telegram_bot.conftest import FRIEND, LINK, OWNER, PEER, World, offered, state

TALK = [
    Turn("B:", "tu fais quoi ce soir avec les autres ?"),
    Turn("A:", "je reste chez moi, j'ai encore du travail pour demain"),
    Turn("B:", "dommage, on voulait aller au cinéma tous ensemble"),
]


def counted(world: World, chat: int | None = None) -> dict[str, Counter[str]]:
    """All weeks' counts; of one chat only, if given."""
    db = world.look()
    try:
        number = None if chat is None else db.value("SELECT id FROM conversations WHERE chat = ?", chat) or -1
        weeks = quality.by_week(db, number)
    finally:
        db.close()
    found: dict[str, Counter[str]] = {}
    for week in weeks.values():
        for figure, kinds in week.items():
            found[figure] = found.get(figure, Counter()) + kinds
    return found


@pytest.fixture
def evaluation(tmp_path: Path) -> str:
    path = tmp_path / "evaluation.json"
    own = style.variation(exchanges(NOA))
    path.write_text(json.dumps({"person": {"style": {key: vars(one) for key, one in own.items()}}}))
    return str(path)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("", "empty"),
        ("je ne sais pas. " * 8, "loop"),
        ("d'accord, alors " + "😂" * 90, "loop"),
        ("哈" * 90, "loop"),
        ("honestly I would rather stay at home tonight and read something, but you go on without me " * 3, "loop"),
        ("Bien sûr que oui, je viens avec Léa. " + "a " * 300, "loop"),
        ("On voulait aller au cinéma tous ensemble !", "copy"),
        ("I really would like to come along, but I have to work tonight", "language"),
        ("au cinéma ?", ""),
        ("mdr ok", ""),
        ("Я вчера ходил в магазин за хлебом, а там была огромная очередь, и я решил вернуться домой.", "language"),
        ("मुझे लगता है कि हम कल शाम को मिल सकते हैं, अगर बारिश नहीं हुई तो पार्क में चलेंगे", "language"),
        ("hahahahaha non non non non", ""),
        (
            "ah oui, vous allez voir lequel ? moi je n'ai pas vu le dernier, il paraît que c'est bien mais un peu long",
            "",
        ),
    ],
)
def test_what_is_visibly_broken(reply: str, why: str) -> None:
    assert quality.broken(BotConfig(owner=1, backend="x"), TALK, reply) == why


def test_a_language_that_somebody_in_the_chat_or_the_person_writes_is_not_foreign(evaluation: str) -> None:
    english = "I really would like to come along, but I have to work tonight"
    config = BotConfig(owner=1, backend="x")
    assert not quality.broken(config, [*TALK, Turn("B:", "we could also go to the beach tomorrow")], english)
    assert not quality.broken(config, TALK[:1], english)  # too little is known of this chat
    assert not quality.broken(BotConfig(owner=1, backend="x", evaluation=evaluation), TALK, english)  # Noa's too


def test_a_broken_reply_is_asked_for_again_with_another_seed(world: World) -> None:
    world.set(checks=Checks())
    replies = iter(["ok " * 60, "", "fine"])
    world.model.reply = lambda prompt: next(replies)
    with world.bot():
        world.api.say(FRIEND, "hello")
        world.wait(FRIEND, "fine")
        world.api.say(OWNER, "/status")
        world.api.until(lambda: any("broken, not sent: 2" in text for text in world.api.texts(OWNER)))
    seeds = [inputs.get("seed") for inputs in world.model.inputs]
    assert seeds[0] is None
    assert len({*seeds}) == 3
    assert counted(world, FRIEND)["withheld"] == {"loop": 1, "empty": 1}
    assert counted(world, FRIEND)["replies"].total() == 1


def test_after_two_more_attempts_it_says_that_it_failed(world: World) -> None:
    world.set(checks=Checks())
    world.model.reply = lambda prompt: ""
    with world.bot():
        world.api.say(FRIEND, "hello")
        world.wait(FRIEND, Texts().failed)
    assert len(world.model.prompts) == 3


def test_attempts_count_in_the_budget(world: World) -> None:
    world.set(checks=Checks(), limits=Limits(predictions_per_day=2))
    world.model.reply = lambda prompt: ""
    with world.bot():
        world.api.say(FRIEND, "hello")
        world.wait(FRIEND, Texts().enough)
    assert len(world.model.prompts) == 2


def test_only_what_was_sent_is_counted(world: World, evaluation: str) -> None:
    world.set(evaluation=evaluation)
    with world.bot():
        world.api.say(FRIEND, "salut ça va")
        world.wait(FRIEND, "SALUT ÇA VA")
        world.api.faults.append(refused())
        world.api.say(FRIEND, "et toi ?")
        world.recorded()
        world.api.until(lambda: world.value("SELECT count(*) FROM outgoing WHERE state = 'refused'"))
    found = counted(world, FRIEND)
    assert found["replies"].total() == 1
    assert found["ended"] == {"itself": 1}
    assert found["words"] == {"3": 1}
    assert found["all_caps"]["yes"] == 3
    assert found["waited"].total() == 1


def refused() -> Any:
    from tests.telegram_bot.fake_bot_api import Fault

    return Fault("sendMessage", 400)


def test_forget_leaves_counts_without_their_chat(world: World, evaluation: str) -> None:
    world.set(evaluation=evaluation)
    with world.bot():
        for number in (1, 2):
            world.api.say(FRIEND, "salut")
            world.api.until(lambda number=number: world.replies(FRIEND).count("SALUT") == number)
            world.api.until(lambda: counted(world, FRIEND))
            world.api.say(FRIEND, "/forget")
            world.api.until(lambda number=number: world.replies(FRIEND).count(Texts().forgotten) == number)
    assert counted(world, FRIEND) == {}
    assert counted(world)["replies"].total() == 2
    assert world.value("SELECT count(DISTINCT conversation) FROM figures") == 1


def test_what_became_of_drafts(business: World, evaluation: str) -> None:
    business.set(evaluation=evaluation)
    api = business.api
    with business.bot():
        api.say_in_business(LINK, PEER, PEER, "tu viens ?")
        api.press(OWNER, offered(business, "TU VIENS ?"), "Send")
        api.until(lambda: state(business) == ["sent"])
        api.say_in_business(LINK, PEER, PEER, "alors")
        query = api.press(OWNER, offered(business, "ALORS"), "Another")
        api.until(lambda: query in api.answered and business.value("SELECT version FROM drafts WHERE id = 2") == 2)
        api.press(OWNER, offered(business, "ALORS"), "Discard")
        api.until(lambda: state(business) == ["sent", "discarded"])
    found = counted(business, PEER)
    assert found["drafts"] == {"sent": 1, "discarded": 1, "another": 1}
    assert found["replies"].total() == found["words"].total() == 1


def test_reactions_to_its_messages(world: World) -> None:
    thumb, heart = {"type": "emoji", "emoji": "👍"}, {"type": "emoji", "emoji": "❤"}
    with world.bot():
        asked = world.api.say(FRIEND, "hello")
        world.wait(FRIEND, "HELLO")
        world.api.until(lambda: world.value("SELECT count(*) FROM figures"))  # it knows what it has sent
        reply = world.api.sent[-1].id
        for message, old, new in ((reply, [], [thumb]), (reply, [thumb], [thumb, heart]), (asked, [], [heart])):
            reaction = {"old_reaction": old, "new_reaction": new, "message_id": message, "date": 0}
            world.api.push(message_reaction=reaction | {"chat": world.api.chat(FRIEND), "user": world.api.user(FRIEND)})
        world.recorded()
    assert counted(world, FRIEND)["reactions"] == {"👍": 1, "❤": 1}


def say(db: Database, world: World, person: Person, count: int, seed: int = 8) -> None:
    """`count` replies that somebody writes as `person`, counted as sent this week."""
    with db.transaction():
        number = intake.open_conversation(db, "private", FRIEND, "", 0, "Malo <b>", db.clock.time())
        for one in exchanges(person, count, seed):
            counts = quality.observed(world.config, one.context, one.reply)
            quality.add(db, number, counts | {"waited": Counter(["2"]), "ended": Counter(["itself"])})


def test_what_left_the_persons_variation_is_named_and_drawn(world: World, evaluation: str, tmp_path: Path) -> None:
    world.set(evaluation=evaluation)
    db = Database(Path(world.config.database), clock=world.clock)
    say(db, world, NOA, 60)
    as_noa = quality.summary(db, world.config).splitlines()
    world.clock.skip(7 * 86400)
    say(db, world, ROMY, 60)
    as_romy = quality.summary(db, world.config).splitlines()
    db.close()
    assert len(as_noa) == len(as_romy) == 4  # nothing to say of drafts and reactions
    alike = [int(re.findall(r"(\d+) of \d+ figures", text[0])[0]) for text in (as_noa, as_romy)]
    assert alike[0] > alike[1] + 5
    assert "▁" <= as_romy[1][-2] < as_romy[1][-1] <= "█"
    assert "wait 2 s" in as_romy[3]  # its median

    bot.quality_page(world.config, tmp_path / "new" / "live.html")
    text = (tmp_path / "new" / "live.html").read_text()
    assert (tmp_path / "new" / "live.html").stat().st_mode & 0o077 == 0
    assert text.count('class="area t5"') == len(style.LIVE)
    assert "Malo &lt;b&gt;" in text
    assert not [one.reply for one in exchanges(ROMY, 60, 8) if len(one.reply) > 20 and one.reply in text]


def alarms(world: World, persons: Sequence[Person], seed: int = 8) -> list[tuple[int, str]]:
    """(number of the block, alarm), of blocks that `persons` write, one each."""
    found = []
    db = Database(Path(world.config.database), clock=world.clock)
    for number, person in enumerate(persons):
        say(db, world, person, style.FEWEST, seed + number)
        with db.transaction():
            found += [(number, text) for text in quality.watch(db, world.config, broken=False)]
    db.close()
    return found


def test_an_alarm_comes_once_when_a_figure_is_off_for_good(world: World, evaluation: str) -> None:
    world.set(evaluation=evaluation)
    found = alarms(world, [NOA] * 10 + [ROMY] + [NOA] * 5 + [ROMY] * 20)
    assert found
    assert min(number for number, _ in found) >= 10 + 1 + 5 + 3  # not by a single day
    assert min(number for number, _ in found) <= 10 + 1 + 5 + 9
    titles = [text.split(" is off")[0] for _, text in found if " is off" in text]
    assert len(titles) == len({*titles})
    assert "Lines all in lower case" in titles


def test_another_evaluation_starts_afresh(world: World, evaluation: str) -> None:
    world.set(evaluation=evaluation)
    assert alarms(world, [ROMY] * 10)
    path = Path(evaluation).with_name("later.json")
    path.write_text(Path(evaluation).read_text() + " ")
    world.set(evaluation=str(path))
    assert not alarms(world, [ROMY] * 2)
    assert alarms(world, [ROMY] * 10)


def test_the_owner_is_told_of_a_model_that_loops(world: World) -> None:
    world.set(checks=Checks())
    world.model.reply = lambda prompt: "ok " * 60
    with world.bot():
        for number in (1, 2, 3, 4):
            world.api.say(FRIEND, "hello")
            world.api.until(lambda number=number: len(world.replies(FRIEND)) == number)
    told = [text for text in world.api.texts(OWNER) if "broken" in text]
    assert len(told) == 1
    assert "loop" in told[0]


def test_quality_is_for_the_owner(world: World) -> None:
    with world.bot():
        world.api.say(OWNER, "hello")
        world.wait(OWNER, "HELLO")
        world.api.until(lambda: world.value("SELECT count(*) FROM figures"))
        world.api.say(OWNER, "/quality")
        world.api.until(lambda: any("1 replies, not compared" in text for text in world.api.texts(OWNER)))
        world.api.say(FRIEND, "/quality")
        world.api.until(lambda: any("/help – this text" in text for text in world.api.texts(FRIEND)))
    assert not any("Week of" in text for text in world.api.texts(FRIEND))


def test_without_a_reply_page_and_console_say_so(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Database(Path(world.config.database)).close()
    config, page = tmp_path / "bot.yaml", tmp_path / "live.html"
    config.write_text(f"owner: 1\nbackend: http://127.0.0.1:9\ndatabase: {world.config.database}\n")
    assert cli.main(["bot", "--config", str(config), "--quality", str(page)]) == 0
    assert "Nothing has been sent yet." in page.read_text()
    assert "Nothing has been sent yet." in capsys.readouterr().out


def test_the_page_replaces_only_itself(world: World, tmp_path: Path) -> None:
    Database(Path(world.config.database)).close()
    out = tmp_path / "live.html"
    for _ in range(2):
        bot.quality_page(world.config, out)
    out.write_text("a diary")
    with pytest.raises(BotError, match="not a page of what was sent"):
        bot.quality_page(world.config, out)
    assert out.read_text() == "a diary"


def test_a_database_of_an_older_version_or_a_damaged_one_is_one_line(world: World, tmp_path: Path) -> None:
    path = Path(world.config.database)
    db = Database(path)
    db.run("ALTER TABLE drafts DROP COLUMN exported")
    db.close()
    with pytest.raises(BotError, match="start this one once: ghost bot"):
        bot.quality_page(world.config, tmp_path / "live.html")
    Database(path).close()  # which adds what is missing
    bot.quality_page(world.config, tmp_path / "live.html")
    path.write_bytes(b"x" * 8192)
    with pytest.raises(BotError, match="not the bot's database"):
        bot.quality_page(world.config, tmp_path / "live.html")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("{", "not figures that this version"),
        ('{"person": {"authorship": {}}}', "not figures that this version"),
        ('{"person": {"style": {"words": {"counts": {"many": 1}, "floors": {"20": [0.1]}}}}}', "not figures that"),
        ('{"person": {"style": {"words": {"counts": {"2": 1}, "floors": {"few": [0.1]}}}}}', "not figures that"),
    ],
)
def test_an_evaluation_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=told) as raised:
        quality.person(str(path))
    assert "ghost evaluate" in str(raised.value)
    assert "\n" not in str(raised.value)
