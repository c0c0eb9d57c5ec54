"""The bot's state: one SQLite file in WAL mode that records everything received, answered and sent.

    updates        ids of delivered updates, to recognise repeats
    conversations  a chat, a thread in a chat, a chat through a business connection, or a burst of forwards
    messages       the history; messages to be answered are `pending`
    predictions    each call of the model, recorded before it is made, for the budget and /status: asked → answered
                   (unsent if Telegram refuses all of it), drafted (answered once its draft is sent), withheld
                   (broken, asked again), unused, failed, lost or refused
    outgoing       each call of Telegram that must not be repeated: planned → sending → sent, refused or doubtful
                   (delivery unknown)
    drafts         the drafts offered to the owner, and their states; `refused`: [text, time] of those for which
                   another was asked; `exported`: when they were written to a file of corrections
    figures        counts of what was sent, by conversation (0: one that is forgotten) and week: telegram_bot/quality.py
    pace           the last minute's rate-limited events: commands by person, and replies deleted by /forget

An update and its consequences are recorded in one transaction, and messages before they are sent. So wherever a process
is killed, either Telegram delivers the update again or the next process finds all its consequences. While the disk is
full, writers wait (`write`) and nothing else happens. Numbers are never reused (AUTOINCREMENT), so a reply to a
forgotten conversation cannot end up in a new one. Calls are synchronous: a transaction takes a millisecond and nothing
else in this process runs during it. Only rewriting the file (VACUUM) runs in a thread.
"""

import asyncio
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from ghost.errors import BotError

log = logging.getLogger("ghost.bot")
Result = TypeVar("Result")

VERSION = 1
SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE updates(id INTEGER PRIMARY KEY, at REAL NOT NULL, failed TEXT);
CREATE TABLE strangers(person INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE noticed(conversation INTEGER NOT NULL, person INTEGER NOT NULL, PRIMARY KEY(conversation, person))
    WITHOUT ROWID;
CREATE TABLE connections(id TEXT PRIMARY KEY, owners INTEGER NOT NULL, can_reply INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE conversations(
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, chat INTEGER NOT NULL, connection TEXT NOT NULL,
    thread INTEGER NOT NULL, name TEXT NOT NULL, since INTEGER NOT NULL DEFAULT 0,
    told TEXT NOT NULL DEFAULT '', at REAL NOT NULL);
CREATE UNIQUE INDEX one_conversation ON conversations(chat, connection, thread) WHERE kind <> 'forwards';
CREATE TABLE messages(
    id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL, mine INTEGER NOT NULL, text TEXT NOT NULL,
    at REAL NOT NULL, telegram INTEGER, slot INTEGER, pending INTEGER NOT NULL DEFAULT 0,
    quoted INTEGER, quote TEXT, writer INTEGER);
CREATE INDEX messages_of ON messages(conversation, id);
CREATE INDEX unanswered ON messages(conversation, id) WHERE pending;
CREATE TABLE predictions(
    id INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, upto INTEGER NOT NULL, day TEXT NOT NULL, at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'asked', remote TEXT, waited REAL, seconds REAL, ended INTEGER);
CREATE INDEX by_day ON predictions(day);
CREATE INDEX asked ON predictions(conversation) WHERE state = 'asked';
CREATE TABLE outgoing(
    id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER, chat INTEGER NOT NULL, connection TEXT NOT NULL,
    thread INTEGER NOT NULL, method TEXT NOT NULL, payload TEXT NOT NULL, pause REAL NOT NULL DEFAULT 0, draft INTEGER,
    state TEXT NOT NULL DEFAULT 'planned', at REAL NOT NULL, telegram INTEGER, error TEXT);
CREATE INDEX unsent ON outgoing(chat, connection, id) WHERE state = 'planned';
CREATE INDEX outgoing_states ON outgoing(state) WHERE state IN ('doubtful', 'refused');
CREATE TABLE drafts(
    id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL, upto INTEGER NOT NULL, state TEXT NOT NULL,
    context TEXT NOT NULL, draft TEXT NOT NULL, text TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1, shown INTEGER,
    closing TEXT, distance REAL, at REAL NOT NULL, refused TEXT NOT NULL DEFAULT '[]', exported REAL);
CREATE INDEX drafts_of ON drafts(conversation);
"""
ADDED_TABLES = (  # which older files lack
    "CREATE TABLE IF NOT EXISTS pace(chat INTEGER NOT NULL, what TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS figures(conversation INTEGER NOT NULL, week TEXT NOT NULL, figure TEXT NOT NULL,"
    " kind TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY(conversation, week, figure, kind)) WITHOUT ROWID",
)
ADDED_COLUMNS = {  # which older files lack
    "messages": {"quoted": "INTEGER", "quote": "TEXT", "writer": "INTEGER"},
    "drafts": {"refused": "TEXT NOT NULL DEFAULT '[]'", "exported": "REAL"},
}
PACE_SECONDS = 60
DONE = "('answered', 'unsent', 'drafted')"  # states of completed predictions
FULL_SECONDS = 5.0  # between two attempts to write to a full disk
REMINDER_SECONDS = 600.0  # between two log lines about it
MIN_FREE_BYTES = 2**20  # with less, treat I/O errors as a full disk too: SQLite's WAL index needs some space


class Clock:
    """Time and sleeping; replaceable in tests."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def today(self) -> str:
        """Return the day in local time, for the daily budget."""
        return time.strftime("%Y-%m-%d", time.localtime(self.time()))

    def week(self) -> str:
        """Return the Monday of the week in local time."""
        now = time.localtime(self.time())
        return str(date(now.tm_year, now.tm_mon, now.tm_mday) - timedelta(days=now.tm_wday))


class DiskFull(BotError):
    """Nothing was written. Retry once there is space."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: the disk is full; free some space, then: ghost bot (keep the file)")


def failure(error: sqlite3.Error, path: Path) -> BotError | None:
    """Translate an SQLite error about the disk or the file; None for a statement's error, which is a bug."""
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if kind == sqlite3.SQLITE_FULL:
        return DiskFull(path)
    if kind in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and shutil.disk_usage(path.parent).free < MIN_FREE_BYTES:
        return DiskFull(path)
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return not_a_database(error, path)
    if kind in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return BotError(f"{path}: cannot be written ({error}); check its disk and permissions, then: ghost bot")
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BotError(f"{path}: locked by another program ({error}); stop it, then: ghost bot")
    return None


def not_a_database(error: sqlite3.Error, path: Path) -> BotError:
    return BotError(f"{path}: not the bot's database ({error}); move it away to start with a new one")


class Database:
    """The database. One process at a time owns it; `exclusive=False` opens it beside a running bot, and without
    `writable` only to read.

    Opening raises BotError when another bot holds the file, or it cannot be used.
    """

    def __init__(
        self, path: Path, *, exclusive: bool = True, writable: bool = False, clock: Clock | None = None
    ) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        self.clock = clock or Clock()
        self._full = False
        self._reminded = float("-inf")
        self._lock = FileLock(f"{path}.lock")
        if exclusive:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise BotError(f"{path}: another ghost bot is running on it; stop that one first") from error
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        elif not path.exists():
            raise BotError(f"{path}: no such file; the first run of `ghost bot` creates it")
        self._writable = asyncio.Event()
        self._writable.set()
        try:
            where = f"file:{quote(str(path))}?mode={'rw' if exclusive or writable else 'ro'}"
            self._db = sqlite3.connect(where, uri=True, isolation_level=None, timeout=60)
            self._db.row_factory = sqlite3.Row
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found != VERSION and not (exclusive and found == 0):
                raise BotError(f"{path}: written by another version of the bot ({found}; this one knows {VERSION})")
            if exclusive:
                self._open(new=found == 0)
            elif not self.value("SELECT 1 FROM pragma_table_info('drafts') WHERE name = 'exported'"):
                raise BotError(f"{path}: written by an older version of the bot; start this one once: ghost bot")
        except (sqlite3.Error, BotError) as error:
            self.close()
            if isinstance(error, BotError):
                raise
            raise failure(error, path) or not_a_database(error, path) from error

    def _open(self, *, new: bool) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # FULL: commits survive a power cut, so not even that makes the bot send a message twice.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")  # overwrite deleted content with zeros
        self._db.execute("PRAGMA temp_store = MEMORY")  # keep VACUUM's copy off the disk
        if new:
            self._db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        for table in ADDED_TABLES:
            self._db.execute(table)
        for table, columns in ADDED_COLUMNS.items():
            known = {row["name"] for row in self._db.execute(f"PRAGMA table_info({table})")}
            for column in columns.keys() - known:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {columns[column]}")
        if self.meta("scrub"):
            self.scrub()

    def close(self) -> None:
        if hasattr(self, "_db"):  # missing if the file could not be opened
            self._db.close()
        self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction, on disk once it has ended. Does not nest. Raises DiskFull."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # on a full disk SQLite has already rolled back
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and isinstance(full := failure(error, self.path), DiskFull):
                self._remind()
                raise full from error
            raise
        if self._full:
            self._full = False
            log.info("%s: there is space again", self.path)

    async def write(self, act: Callable[[], Result]) -> Result:
        """Run `act` within a transaction and return its result. Repeats it while the disk is full, so `act` may change
        nothing but the database."""
        while True:
            await self.writable()
            with suppress(DiskFull), self.transaction():
                return act()
            await self.clock.sleep(FULL_SECONDS)

    def _remind(self) -> None:
        """Log one line for all waiting writers, and again every REMINDER_SECONDS."""
        if self.clock.monotonic() >= self._reminded + REMINDER_SECONDS:
            self._reminded, self._full = self.clock.monotonic(), True
            log.error("%s: the disk is full; free some space and the bot continues, with nothing lost", self.path)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Within a transaction: roll back only this block if it fails. A full disk rolls back the whole transaction."""
        self._db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO part")
                self._db.execute("RELEASE part")
            raise
        self._db.execute("RELEASE part")

    def run(self, statement: str, *values: Any) -> int:
        """Run a statement and return the id of the inserted row, if any."""
        return self._db.execute(statement, values).lastrowid or 0

    def changed(self, statement: str, *values: Any) -> int:
        """Run a statement and return the number of rows changed."""
        return self._db.execute(statement, values).rowcount

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return found

    def required_row(self, query: str, *values: Any) -> sqlite3.Row:
        """Return the first row. Raises LookupError when there is none."""
        if (found := self.row(query, *values)) is None:
            raise LookupError(f"no row: {query}")
        return found

    def value(self, query: str, *values: Any) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(query, *values)
        return None if found is None else found[0]

    def meta(self, key: str) -> str:
        return str(self.value("SELECT value FROM meta WHERE key = ?", key) or "")

    def set_meta(self, key: str, value: str) -> None:
        self.run("INSERT INTO meta VALUES(?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", key, value)

    def count_per_minute(self, chat: int, what: str) -> int:
        """Within a transaction: record an event and return how many there were within a minute; delete older ones."""
        now = self.clock.time()
        # The upper bound: clocks may be set back.
        self.run("DELETE FROM pace WHERE NOT at BETWEEN ? AND ?", now - PACE_SECONDS, now)
        self.run("INSERT INTO pace VALUES(?, ?, ?)", chat, what, now)
        return int(self.value("SELECT count(*) FROM pace WHERE chat = ? AND what = ?", chat, what))

    def bind_to_bot(self, bot: int) -> None:
        """Record the bot's id. Raises BotError when the file belongs to another bot, whose chats and offsets differ."""
        found = self.meta("bot")
        if found and found != str(bot):
            raise BotError(
                f"{self.path}: belongs to the bot {found}, and the token is that of {bot}; set another file as database"
            )
        if not found:
            with self.transaction():
                self.set_meta("bot", str(bot))

    def scrub(self) -> None:
        """Remove deleted content from free pages and the write-ahead log. If killed, the next start repeats it."""
        if _scrub(self._db):
            with self.transaction():
                self._scrubbed()

    async def scrub_in_background(self) -> None:
        """Run `scrub` in a thread, on its own connection, because VACUUM rewrites the whole file.

        Writers await `writable` meanwhile, or SQLite would block them and the event loop. Postponed on a full disk.
        """
        self._writable.clear()
        try:
            # Wait for the thread even if cancelled: it cannot be stopped, and needs the file open.
            done = asyncio.ensure_future(asyncio.to_thread(_scrub_file, self.path))
            try:
                emptied = await asyncio.shield(done)
            except asyncio.CancelledError:
                await asyncio.wait({done})
                raise
            except sqlite3.Error as error:
                if not isinstance(failure(error, self.path), DiskFull):
                    raise
                self._remind()
                emptied = False
        finally:
            self._writable.set()
        if emptied:
            await self.write(self._scrubbed)

    async def writable(self) -> None:
        await self._writable.wait()

    def _scrubbed(self) -> None:
        self.run("DELETE FROM meta WHERE key = 'scrub'")


def _scrub_file(path: Path) -> bool:
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        return _scrub(db)
    finally:
        db.close()


def _scrub(db: sqlite3.Connection) -> bool:
    """Return whether the write-ahead log was emptied; if not, another process is reading it."""
    try:
        db.execute("VACUUM")
    except sqlite3.Error:
        with suppress(sqlite3.Error):  # drop what it wrote before the disk was full
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raise
    return not db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
