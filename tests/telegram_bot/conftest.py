"""A bot on the loopback: the fake Bot API before it, the fake model behind it."""

import asyncio
import functools
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ghost.errors import BotError
from telegram_bot.config import BotConfig, Checks, Drafts, Limits, Typing
from telegram_bot.database import Clock, Database
from telegram_bot.texts import Texts
from tests.ghost.serving.cog_server import url  # noqa: F401  (a fixture)
from tests.telegram_bot.fake_bot_api import TOKEN, FakeBotAPI, Sent
from tests.telegram_bot.fake_model import FakeModel

OWNER, FRIEND, STRANGER, PEER, GROUP = 11, 22, 33, 44, -1001
LINK = "bc1"  # a business connection of the owner's
NOTICE = Texts().notice
RATE = 50.0  # seconds of the bot's in one of ours


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bot reads all the certificates of the world first, most of a test's time; the servers here have none."""
    monkeypatch.setattr("ssl.create_default_context", _SSL_CONTEXT)


_SSL_CONTEXT = functools.cache(ssl.create_default_context)


@pytest.fixture
def api() -> Iterator[FakeBotAPI]:
    server = FakeBotAPI()
    server.names.update({OWNER: "Noa", FRIEND: "Malo", PEER: "Ines"})
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model() -> Iterator[FakeModel]:
    server = FakeModel()
    yield server
    server.shutdown()
    server.server_close()


class FastClock(Clock):
    """The bot's time. It passes only where the bot waits for it, and there much faster than ours; so what a test says
    within a minute is within a minute on a slow machine too. It can stand still, and skip ahead."""

    def __init__(self) -> None:
        self.epoch, self._passed, self._stands = time.time(), 0.0, False

    def monotonic(self) -> float:
        return self._passed

    def time(self) -> float:
        return self.epoch + self._passed

    async def sleep(self, seconds: float) -> None:
        until, awake = self._passed + seconds, time.monotonic() + seconds / RATE
        await asyncio.sleep(0)
        while self._passed < until:
            if time.monotonic() >= awake and not self._stands:
                self._passed = max(self._passed, until)
            else:
                await asyncio.sleep(0.002)

    def skip(self, seconds: float) -> None:
        self._passed += seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self._stands = True
        try:
            yield
        finally:
            self._stands = False


class World:
    """The bot's surroundings; `bot()` is the bot, running in a thread of its own until the block ends."""

    def __init__(self, api: FakeBotAPI, model: FakeModel, folder: Path) -> None:
        self.api, self.model, self.clock = api, model, FastClock()
        self.config = BotConfig(
            owner=OWNER,
            allow=[FRIEND],
            backend=model.url,
            telegram=api.url,
            database=str(folder / "bot" / "ghost.sqlite3"),
            debounce_seconds=1.0,
            waking_seconds=4.0,
            typing=Typing(characters_per_second=1e6, longest_seconds=0),
            limits=Limits(replies_per_minute=1000),
            checks=Checks(retries=0, loop_share=0, copied_words=1000),  # the model repeats what it is asked
        )

    def set(self, **changes: Any) -> None:
        self.config = msgspec.structs.replace(self.config, **changes)

    @contextmanager
    def bot(self) -> Iterator[None]:
        from telegram_bot import service

        started, failed = threading.Event(), []
        self.ended = threading.Event()

        async def live() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self.loop = loop
            self._stop: Callable[[], Any] = lambda: loop.call_soon_threadsafe(task.cancel)
            started.set()
            try:
                await service.serve(self.config, TOKEN, signals=(), clock=self.clock)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                failed.append(error)
            self.ended.set()

        thread = threading.Thread(target=lambda: asyncio.run(live()))
        thread.start()
        started.wait()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it has ended by itself, and its loop with it
                self._stop()
            thread.join(20)
        assert not thread.is_alive()
        if failed:
            raise failed[0]

    def look(self) -> Database:
        return Database(Path(self.config.database), exclusive=False)

    def value(self, query: str) -> Any:
        """None where there is no database yet."""
        try:
            db = self.look()
        except BotError:
            return None
        try:
            return db.value(query)
        finally:
            db.close()

    def recorded(self) -> None:
        """Until the bot has written down all that was said to it."""
        self.api.until(lambda: self.api.confirmed == self.api.next_update)

    def replies(self, chat: int) -> list[str]:
        """What a chat was told, without the notice that comes first."""
        return [text for text in self.api.texts(chat) if text != NOTICE]

    def wait(self, chat: int, *texts: str) -> None:
        """Until a chat was told exactly these, after the notice."""
        self.api.until(lambda: len(self.replies(chat)) >= len(texts))
        assert self.replies(chat) == list(texts)


@pytest.fixture
def world(api: FakeBotAPI, model: FakeModel, tmp_path: Path) -> World:
    return World(api, model, tmp_path)


@pytest.fixture
def business(world: World) -> World:
    world.set(drafts=Drafts(chats=[PEER]))
    world.api.connect(LINK, OWNER)
    return world


def offered(world: World, text: str) -> Sent:
    """The message to the owner that offers `text`."""

    def find() -> Sent | None:
        return next((sent for sent in world.api.sent if sent.chat == OWNER and sent.text.endswith(f"\n\n{text}")), None)

    found: Sent = world.api.until(lambda: (sent := find()) and sent.buttons and sent)
    return found


def state(world: World) -> list[str]:
    db = world.look()
    try:
        return [row["state"] for row in db.rows("SELECT state FROM drafts ORDER BY id")]
    finally:
        db.close()
