"""What is kept, for how long, and that what is deleted is gone from the bytes of the files."""

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ghost.errors import BotError
from telegram_bot import database, retention
from telegram_bot.bot import corrections
from telegram_bot.config import BotConfig, Retention
from telegram_bot.database import Database, DiskFull
from telegram_bot.texts import Texts
from tests.telegram_bot.conftest import FRIEND, NOTICE, OWNER, World

TEXTS = Texts()
SECRET = "the-dragon-sleeps-at-noon"


def found_in_files(world: World, words: str) -> list[str]:
    folder = Path(world.config.database).parent
    spelled = [words, words.upper(), json.dumps(words)]
    return [path.name for path in folder.iterdir() if any(s.encode() in path.read_bytes() for s in spelled)]


def test_forget_leaves_no_byte(world: World) -> None:
    with world.bot():
        for number in range(3):
            world.api.say(FRIEND, f"{SECRET} {number}")
            world.api.until(lambda number=number: len(world.replies(FRIEND)) == number + 1)
        world.api.say(OWNER, "something else")
        world.api.until(lambda: "SOMETHING ELSE" in world.api.texts(OWNER))
        assert found_in_files(world, SECRET)
        world.api.say(FRIEND, "/forget")
        world.api.until(lambda: TEXTS.forgotten in world.replies(FRIEND))
        assert not found_in_files(world, SECRET)  # while it runs: not in the log either
    assert not found_in_files(world, SECRET)
    assert found_in_files(world, "something else")
    assert world.value("SELECT count(*) FROM predictions") == 4  # the budget does not forget, and names nobody
    assert world.value("SELECT count(*) FROM predictions WHERE conversation = 0") == 3


def test_the_bot_does_not_stand_while_the_file_is_written_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, finish = threading.Event(), threading.Event()
    scrub = database._scrub

    def slow(db: sqlite3.Connection) -> bool:
        db.execute("BEGIN IMMEDIATE")  # as VACUUM does
        writing.set()
        finish.wait(30)
        db.execute("COMMIT")
        return scrub(db)

    monkeypatch.setattr(database, "_scrub", slow)
    world.model.hold.clear()
    with world.bot():
        world.api.say(OWNER, "hi")
        world.api.until(lambda: world.model.prompts)
        world.api.say(FRIEND, "/forget")
        assert writing.wait(30)
        world.model.hold.set()  # a reply comes meanwhile, which is to be written down
        for _ in range(3):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), world.loop).result(10)
        assert "HI" not in world.replies(OWNER)
        finish.set()
        world.wait(OWNER, "HI")
        world.api.until(lambda: TEXTS.forgotten in world.replies(FRIEND))
        world.api.until(lambda: not world.value("SELECT count(*) FROM meta WHERE key = 'scrub'"))


def test_forget_while_it_thinks(world: World) -> None:
    world.model.hold.clear()
    with world.bot():
        world.api.say(FRIEND, SECRET)
        world.api.until(lambda: world.model.prompts)
        world.api.say(FRIEND, "/forget")
        world.api.until(lambda: TEXTS.forgotten in world.replies(FRIEND))
        world.model.hold.set()
        world.api.say(FRIEND, "hello again")
        world.api.until(lambda: "HELLO AGAIN" in world.replies(FRIEND))
    assert SECRET.upper() not in world.replies(FRIEND)
    assert world.model.prompts[-1] == "B: hello again\nA:"
    assert not found_in_files(world, SECRET)


def test_the_owner_forgets_all(world: World) -> None:
    with world.bot():
        world.api.say(FRIEND, SECRET)
        world.api.until(lambda: world.replies(FRIEND))
        world.api.say(FRIEND, "/forget all")  # theirs only
        world.api.say(FRIEND, SECRET)
        world.api.until(lambda: world.replies(FRIEND).count(SECRET.upper()) == 2)
        world.api.say(OWNER, "/forget all")
        world.api.until(lambda: any(TEXTS.forgotten in text for text in world.api.texts(OWNER)))
    assert not found_in_files(world, SECRET)


def test_a_forgetting_that_was_killed_is_finished_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "ghost.sqlite3"
    db = Database(path)
    with db.transaction():
        db.run(
            "INSERT INTO conversations(id, kind, chat, connection, thread, name, at) VALUES(1,'private',1,'',0,'',0)"
        )
        db.run("INSERT INTO messages(conversation, mine, text, at) VALUES(1, 0, ?, 0)", SECRET)
    with db.transaction():
        retention.forget(db, [1])
    left = Path(f"{path}-wal").read_bytes()
    db.close()  # without the scrub; and this close checkpoints, which a kill would not
    assert SECRET.encode() in left
    Path(f"{path}-wal").write_bytes(left)
    Path(f"{path}-shm").unlink(missing_ok=True)
    Database(path).close()
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_what_is_old_goes_by_itself(world: World) -> None:
    world.set(retention=Retention(messages_days=30, corrections_days=60))
    db = Database(Path(world.config.database))
    for id, days in [(1, 40), (2, 20)]:
        at = time.time() - days * 86400
        with db.transaction():
            db.run(
                "INSERT INTO conversations(id, kind, chat, connection, thread, name, at) VALUES(?,'group',?,'',0,'',?)",
                *(id, id, at),
            )
            db.run("INSERT INTO messages(conversation, mine, text, at) VALUES(?, 0, ?, ?)", id, f"{SECRET}{id}", at)
            for state in ("edited", "outdated"):
                db.run(
                    "INSERT INTO drafts(conversation, upto, state, context, draft, text, at)"
                    " VALUES(?, 0, ?, '', '', ?, ?)",
                    *(id, state, f"{state}{id}", at),
                )
    db.close()
    with world.bot():
        world.api.until(lambda: "getUpdates" in world.api.calls)
    assert not found_in_files(world, f"{SECRET}1")
    assert found_in_files(world, f"{SECRET}2")
    assert found_in_files(world, "edited1")
    assert not found_in_files(world, "outdated1")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = Database(tmp_path / "ghost.sqlite3")
    with pytest.raises(BotError, match="another ghost bot is running"):
        Database(tmp_path / "ghost.sqlite3")
    Database(tmp_path / "ghost.sqlite3", exclusive=False).close()
    first.close()
    Database(tmp_path / "ghost.sqlite3").close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    db = Database(tmp_path / "bot" / "ghost.sqlite3")
    assert (tmp_path / "bot").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "bot").iterdir() if path.suffix != ".lock")
    db.close()


def test_another_bots_database_is_refused(tmp_path: Path) -> None:
    db = Database(tmp_path / "ghost.sqlite3")
    db.bind_to_bot(1)
    with pytest.raises(BotError, match="belongs to the bot 1, and the token is that of 2"):
        db.bind_to_bot(2)
    db.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ghost.sqlite3"
    path.write_text("hello" * 1000)
    with pytest.raises(BotError, match="not the bot's database"):
        Database(path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BotError, match="another version"):
        Database(path)


def failing(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


def test_a_disk_that_is_full_at_the_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(*args: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*args, **options)
        db.execute("PRAGMA max_page_count = 2")
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(DiskFull, match=r"ghost\.sqlite3: the disk is full; free some space"):
        Database(tmp_path / "ghost.sqlite3")
    monkeypatch.undo()
    Database(tmp_path / "ghost.sqlite3").close()  # and what it left is no obstacle once there is room


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY])
def test_what_ails_the_disk_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def connect(*_: Any, **__: Any) -> sqlite3.Connection:
        raise failing(code)

    monkeypatch.setattr(sqlite3, "connect", connect)
    for free, meaning in [(2**30, "cannot be written"), (0, "the disk is full")]:
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(BotError) as told:
            Database(tmp_path / "ghost.sqlite3")
        assert "move it away" not in str(told.value)
        assert meaning in str(told.value) or code == sqlite3.SQLITE_READONLY


class Disk:
    """A connection to a disk that is full after so many more transactions."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db, self.room, self.refused = db, 10**9, threading.Event()

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        if statement == "COMMIT":
            self.room -= 1
            if self.room < 0:
                self._db.execute("ROLLBACK")  # as SQLite does
                self.refused.set()
                raise failing(sqlite3.SQLITE_FULL)
        return self._db.execute(statement, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Disk]:
    """The disk of the bot that runs."""
    disks: list[Disk] = []

    class OnDisk(Database):
        def __init__(self, path: Path, **options: Any) -> None:
            super().__init__(path, **options)
            disks.append(Disk(self._db))
            self._db = disks[-1]  # type: ignore[assignment]

    monkeypatch.setattr("telegram_bot.service.Database", OnDisk)
    return lambda: disks[-1]


@pytest.mark.parametrize("transactions", range(7))  # as many as a first message makes, from its arrival to its reply's
def test_while_the_disk_is_full_nothing_is_lost_or_said_twice(
    world: World, disk: Callable[[], Disk], transactions: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ghost.bot"), world.bot():
        world.api.until(lambda: "getUpdates" in world.api.calls)
        disk().room = transactions
        world.api.say(FRIEND, "hi")
        assert disk().refused.wait(30)
        world.api.say(FRIEND, "and you?")
        world.clock.skip(30)  # it tries again meanwhile
        disk().room = 10**9
        world.api.until(lambda: "AND YOU?" in world.replies(FRIEND))
        world.recorded()
    assert world.api.texts(FRIEND) == [NOTICE, "HI", "AND YOU?"]
    assert world.value("SELECT count(*) FROM outgoing WHERE state <> 'sent'") == 0
    assert len([line for line in caplog.messages if "the disk is full" in line]) == 1
    assert len([line for line in caplog.messages if "there is space again" in line]) == 1


def test_a_bot_that_ends_on_a_full_disk_repeats_nothing(
    world: World, disk: Callable[[], Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("telegram_bot.outgoing.CLOSE_SECONDS", 0.1)
    with world.bot():
        world.api.until(lambda: "getUpdates" in world.api.calls)
        disk().room = 6  # what the reply's arrival is recorded with finds none
        world.api.say(FRIEND, "hi")
        world.api.until(lambda: "HI" in world.replies(FRIEND))
        assert disk().refused.wait(30)
    with world.bot():
        world.api.say(FRIEND, "next")
        world.wait(FRIEND, "HI", "NEXT")
    assert world.model.prompts[1] == "B: hi\nA: HI\nB: next\nA:"


def test_what_is_to_be_forgotten_is_so_once_there_is_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """VACUUM writes the file anew, for which there may be no room: it is made up for."""
    db = Database(Path(world.config.database))
    with db.transaction():
        db.run("INSERT INTO messages(conversation, mine, text, at) VALUES(1, 0, ?, 0)", SECRET)
    with db.transaction():
        retention.forget(db, [1])

    def no_room(_: Any) -> bool:
        raise failing(sqlite3.SQLITE_FULL)

    with monkeypatch.context() as patched:
        patched.setattr(database, "_scrub", no_room)
        asyncio.run(db.scrub_in_background())
    assert db.meta("scrub")
    asyncio.run(db.scrub_in_background())
    assert not db.meta("scrub")
    assert not found_in_files(world, SECRET)
    db.close()


def test_a_disk_that_breaks_ends_it_with_one_line(world: World, disk: Callable[[], Disk]) -> None:
    class Broken(Disk):
        def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
            raise failing(sqlite3.SQLITE_IOERR_READ)

    with pytest.raises(BotError, match=r"cannot be written \(what SQLite says\)"), world.bot():
        world.api.until(lambda: "getUpdates" in world.api.calls)
        disk().__class__ = Broken
        world.api.say(FRIEND, "hi")
        assert world.ended.wait(30)


def test_a_file_from_before_replies_were_shown_is_read(tmp_path: Path) -> None:
    Database(tmp_path / "ghost.sqlite3").close()
    with sqlite3.connect(tmp_path / "ghost.sqlite3") as old:
        for table, columns in database.ADDED_COLUMNS.items():
            for column in columns:
                old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        old.execute("INSERT INTO messages(conversation, mine, text, at) VALUES(1, 0, 'hi', 0)")
    old.close()
    db = Database(tmp_path / "ghost.sqlite3")
    assert db.value("SELECT quote FROM messages") is None
    assert not db.rows("SELECT refused, exported FROM drafts")
    db.close()


def test_updates_that_come_again_change_nothing(world: World) -> None:
    with world.bot():
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
        update = {"update_id": 1000, "message": world.api.message(FRIEND, "hi")}
        with world.api.changed:
            world.api.updates.append(update)
            world.api.changed.notify_all()
        world.api.until(lambda: not world.api.updates)
    assert world.replies(FRIEND) == ["HI"]


def test_an_update_nobody_understands_does_not_block_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from telegram_bot import commands

    monkeypatch.setattr(commands, "answer", lambda *_: 1 / 0)
    with world.bot():
        world.api.say(FRIEND, "/help")
        world.api.say(FRIEND, "hi")
        world.wait(FRIEND, "HI")
    assert world.value("SELECT failed FROM updates ORDER BY id LIMIT 1") == "ZeroDivisionError"


def test_the_log_is_empty_before_a_forgetting_counts_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db = Database(tmp_path / "ghost.sqlite3")
    with db.transaction():
        db.run("INSERT INTO messages(conversation, mine, text, at) VALUES(1, 0, ?, 0)", SECRET)
    with db.transaction():
        retention.forget(db, [1])
    monkeypatch.setattr(db, "run", lambda *_: 1 / 0)  # killed as it notes that it is done
    with pytest.raises(ZeroDivisionError):
        db.scrub()
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
    db.close()


@pytest.mark.parametrize(("messages", "corrections", "left"), [(30, 60, 1), (30, 10, 0), (5, 60, 1)])
@pytest.mark.parametrize("judged", [("edited", "[]"), ("sent", "[]"), ("own", "[]"), ("outdated", '[["x", 1]]')])
def test_corrections_have_a_retention_of_their_own(
    tmp_path: Path, messages: int, corrections: int, left: int, judged: tuple[str, str]
) -> None:
    db = Database(tmp_path / "ghost.sqlite3")
    with db.transaction():
        db.run(
            "INSERT INTO drafts(conversation, upto, state, context, draft, text, at, refused)"
            " VALUES(1, 0, ?, '', '', '', ?, ?)",
            *(judged[0], time.time() - 20 * 86400, judged[1]),
        )
    retention.expire(db, messages, corrections)
    assert db.value("SELECT count(*) FROM drafts") == left
    db.close()


def test_a_clock_that_is_set_back_asks_for_nothing_twice(world: World) -> None:
    with world.bot():
        world.api.say(FRIEND, "one")
        world.wait(FRIEND, "ONE")
        world.clock.epoch -= 3600
        world.api.say(FRIEND, "two")
        world.wait(FRIEND, "ONE", "TWO")
        world.recorded()


def test_a_damaged_database_is_one_line_when_corrections_are_written(tmp_path: Path) -> None:
    path = tmp_path / "ghost.sqlite3"
    db = Database(path)
    with db.transaction():
        for _ in range(200):
            db.run(
                "INSERT INTO drafts(conversation, upto, state, context, draft, text, at)"
                " VALUES(1, 1, 'edited', '[]', ?, 'b', 1.0)",
                "a" * 500,
            )
    db._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = bytearray(path.read_bytes())
    content[4096 * 4 :] = b"\xff" * (len(content) - 4096 * 4)
    path.write_bytes(bytes(content))
    config = BotConfig(owner=1, backend="http://127.0.0.1:1", database=str(path))
    with pytest.raises(BotError, match="not the bot's database"):
        corrections(config, tmp_path / "corrections.jsonl")
    assert not (tmp_path / "corrections.jsonl").exists()
