"""A bot on the loopback: the fake Bot API before it, the fake model behind it."""

import asyncio
import functools
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from telegram_bot.config import BotConfig, Drafts, Limits, Texts, Typing
from telegram_bot.database import Database
from tests.telegram_bot.fake_bot_api import TOKEN, FakeBotAPI, Sent
from tests.telegram_bot.fake_model import FakeModel

OWNER, FRIEND, STRANGER, PEER, GROUP = 11, 22, 33, 44, -1001
LINK = "bc1"  # a business connection of the owner's
NOTICE = Texts().notice


@pytest.fixture(autouse=True)
def one_ssl_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bot reads all the certificates of the world first, most of a test's time; the servers here have none."""
    monkeypatch.setattr("ssl.create_default_context", _SSL_CONTEXT)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("service", "outgoing", "replies"):
        monkeypatch.setattr(f"telegram_bot.{module}.LONGEST_WAIT", 0.2)


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


class World:
    """The bot's surroundings; `bot()` is the bot, running in a thread of its own until the block ends."""

    def __init__(self, api: FakeBotAPI, model: FakeModel, folder: Path) -> None:
        self.api, self.model = api, model
        self.config = BotConfig(
            owner=OWNER,
            allow=[FRIEND],
            backend=model.url,
            telegram=api.url,
            database=str(folder / "bot" / "ghost.sqlite3"),
            debounce_seconds=0.05,
            waking_seconds=0.2,
            typing=Typing(characters_per_second=1e6, longest_seconds=0),
            limits=Limits(replies_per_minute=1000),
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
                await service.serve(self.config, TOKEN, signals=())
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
        db = self.look()
        try:
            return db.value(query)
        finally:
            db.close()

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
