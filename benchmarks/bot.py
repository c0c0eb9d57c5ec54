"""The bot on the loopback: what it adds to a reply, a thousand chats at once, and a soak with faults and kill -9.

    python -m benchmarks.bot --record          # some fourteen minutes on a quiet machine of two cores

The Bot API and the model server are those of the tests (tests/telegram_bot), in this process; the bot is another one,
kept on one core. The model answers at once. What is measured holds the two servers' own time too, and the fsync of each
transaction: a message is written down five times before its reply is read.
"""

import argparse
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path

import msgspec
import yaml

from benchmarks.extraction import machine
from telegram_bot.config import BotConfig, Limits, Typing
from telegram_bot.database import Database
from telegram_bot.texts import Texts
from tests.telegram_bot.fake_bot_api import FakeBotAPI, Fault
from tests.telegram_bot.fake_model import FakeModel
from tests.telegram_bot.test_killed import Mortal

RESULT = Path(__file__).parent / "results" / "bot.md"
FIRST = 10_000  # the first chat's id
LIMIT_MS, CHATS, MESSAGES = 20.0, 1000, 20
MOODS = ("busy", "starting", "failed", "lost")
FAULTS = (("sendMessage", 429), ("sendMessage", 500), ("sendMessage", "cut"), ("sendMessage", "lost"))
FAULTS += (("getUpdates", 502), ("getUpdates", "lost"), ("sendChatAction", "cut"))


class Scene:
    """Chats that say numbered messages, and what came back."""

    def __init__(self, folder: Path, chats: int, seed: int, backend: str = "") -> None:
        self.api, self.model, self.rng = FakeBotAPI(), FakeModel(), random.Random(seed)
        self.chats = range(FIRST, FIRST + chats)
        self.config = BotConfig(
            owner=1,
            allow=list(self.chats),
            backend=backend or self.model.url,
            telegram=self.api.url,
            database=str(folder / "bot" / "ghost.sqlite3"),
            debounce_seconds=0.0,
            typing=Typing(longest_seconds=0.0),
            limits=Limits(replies_per_minute=10**6, predictions_per_day=10**6, predictions_at_once=32),
        )
        path = folder / "bot.yaml"
        path.write_text(yaml.safe_dump(msgspec.to_builtins(self.config)))
        self.bot = Mortal(path)
        os.sched_setaffinity(self.bot.process.pid, {0})  # and so each life, which is a fork of it
        self.said: dict[str, float] = {}
        self.came: Counter[str] = Counter()
        self.waits: list[float] = []
        self._seen = 0

    def say(self, chat: int, number: int) -> None:
        self.said[f"C{chat}N{number}"] = time.time()
        self.api.say(chat, f"c{chat}n{number}")

    def look(self) -> list[str]:
        """The replies that came since the last look."""
        new = self.api.sent[self._seen :]
        self._seen += len(new)
        found = []
        # A reply of many lines keeps the rest in its last message.
        for line, at in ((line, sent.at) for sent in new for line in sent.text.split("\n")):
            if line in self.said:
                if not self.came[line]:
                    self.waits.append(at - self.said[line])
                self.came[line] += 1
                found.append(line)
        return found

    def until(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while self.look() or not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.came):,} of {len(self.said):,} messages are answered")
            time.sleep(0.002)

    def close(self) -> None:
        assert self.bot.process.stdin is not None
        self.bot.process.stdin.close()
        self.bot.process.wait(60)
        for server in (self.api, self.model):
            server.shutdown()
            server.server_close()


@contextmanager
def scene(chats: int, seed: int = 0) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as folder:
        one = Scene(Path(folder), chats, seed)
        try:
            yield one
        finally:
            one.close()


def resident(pid: int) -> float:
    """Megabytes of memory that process `pid` holds."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def cpu(pid: int) -> float:
    """Seconds of processor time that process `pid` has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latency(messages: int) -> list[str]:
    """One chat after the other, a message at a time."""
    with scene(10) as one:
        one.bot.tell("0")
        for number in range(messages):
            one.say(one.chats[number % 10], number)
            one.until(lambda number=number: len(one.came) > number)  # type: ignore[misc]
        one.bot.tell("stop")
        waits = [1000 * wait for wait in one.waits[10:]]  # without each chat's first, before which the notice is sent
    middle = statistics.median(waits)
    verdict = "met" if middle <= LIMIT_MS else "NOT met"
    row = f"| {len(waits)} | {middle:.1f} | {statistics.quantiles(waits, n=20)[-1]:.1f} | {max(waits):.1f} |"
    return [
        "## Added to a reply",
        f"From a message at the Bot API to its reply there, the model answering at once. At most {LIMIT_MS:.0f} ms at "
        f"the median: {verdict}.",
        "| messages | median ms | 95% ms | longest ms |\n|---:|---:|---:|---:|\n" + row,
    ]


def at_once(chats: int, rounds: int) -> list[str]:
    """Everybody writes in the same moment; then again, when all are answered."""
    with scene(chats) as one:
        pid = one.bot.tell("0")
        one.say(FIRST, 0)
        one.until(lambda: bool(one.came))
        rows, idle = [], resident(pid)
        for number in range(1, rounds + 1):
            one.waits.clear()
            before, spent = time.monotonic(), cpu(pid)
            for chat in one.chats:
                one.say(chat, number)
            goal = 1 + number * chats
            one.until(lambda goal=goal: len(one.came) >= goal)  # type: ignore[misc]
            took = time.monotonic() - before
            per = 1000 * (cpu(pid) - spent) / chats
            waits = f"{statistics.median(one.waits):.1f} | {max(one.waits):.1f}"
            rows.append(f"| {number} | {took:.1f} | {chats / took:.0f} | {waits} | {per:.1f} | {resident(pid):.0f} |")
        one.bot.tell("stop")
        twice = sum(count > 1 for count in one.came.values())
    return [
        f"## {chats:,} chats in the same moment, on one core",
        f"All {len(one.came):,} messages were answered, {twice} twice. In round 1 each chat is told first that this is "
        f"an AI. Before it, the bot held {idle:.0f} MB.",
        "| round | seconds | replies a second | median wait s | longest s | bot's CPU ms a message | MB |\n"
        "|---:|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows),
    ]


def soak(chats: int, messages: int, seed: int) -> list[str]:
    """`messages` from each chat, faults at random, the bot killed at random until half is said; then one life."""
    with scene(chats, seed) as one:
        api, rng = one.api, one.rng
        next_number, waits_since = dict.fromkeys(one.chats, 0), dict.fromkeys(one.chats, 0.0)
        pid, kills, faults = one.bot.tell("0"), 0, Counter[str]()
        total, said, memory, began = chats * messages, 0, [], time.monotonic()
        dies = time.monotonic() + rng.uniform(0.5, 4)
        while said < total:
            for reply in one.look():
                waits_since[int(reply[1:].split("N")[0])] = 0.0
            now = time.monotonic()
            # Nobody waits for ever: who has no answer after three seconds, as when it is in doubt, writes the next one.
            free = [chat for chat in one.chats if next_number[chat] < messages and now - waits_since[chat] > 3]
            for chat in rng.sample(free, min(len(free), 40)):
                one.say(chat, next_number[chat])
                next_number[chat], waits_since[chat] = next_number[chat] + 1, now
                said += 1
                if said >= total // 2 and said % (total // 10) == 0:
                    memory.append(f"{said:,}: {resident(pid):.0f} MB" if kills else "")
            if rng.random() < 0.1 and len(one.model.moods) < 3:
                one.model.moods.append(mood := rng.choice(MOODS))
                faults[f"model {mood}"] += 1
            if rng.random() < 0.2 and sum(fault.times for fault in api.faults) < 3:
                where, what = rng.choice(FAULTS)
                api.faults = [fault for fault in api.faults if fault.times]
                api.faults.append(Fault(where, what, retry_after=1 if what == 429 else None))
                faults[f"{where} {what}"] += 1
            if now > dies and said < total // 2:
                one.bot.tell("end")
                pid, kills, dies = one.bot.tell("0"), kills + 1, time.monotonic() + rng.uniform(0.5, 4)
            time.sleep(0.01)
        api.faults, one.model.moods = [], []
        left = "SELECT (SELECT count(*) FROM messages WHERE pending)"
        left += " + (SELECT count(*) FROM outgoing WHERE state IN ('planned', 'sending'))"

        def settled() -> bool:
            time.sleep(0.5)
            with _looking(one) as db:
                return api.confirmed >= api.next_update and db.value(left) == 0

        one.until(settled)
        one.look()  # at what came while the database was asked
        took = time.monotonic() - began
        memory.append(f"at the end: {resident(pid):.0f} MB")
        one.bot.tell("stop")
        figures, met = account(one, total)
    told = ", ".join(f"{what} × {count}" for what, count in sorted(faults.items()))
    return [
        f"## Soak: {chats:,} chats × {messages} messages",
        f"{kills} times kill -9; {took:.0f} s. Faults: {told}. All in, none lost in silence, none twice: "
        f"{'met' if met else 'NOT met'}.",
        "\n".join(f"- {name}: {count:,}" for name, count in figures.items()),
        "Memory of the last life by messages said, half of all being its own: " + ", ".join(filter(None, memory)) + ".",
    ]


@contextmanager
def _looking(one: Scene) -> Iterator[Database]:
    db = Database(Path(one.config.database), exclusive=False)
    try:
        yield db
    finally:
        db.close()


def account(one: Scene, total: int) -> tuple[dict[str, int], bool]:
    """Count what became of each of `total` messages; True if all came in, none was lost in silence and none said twice.

    A reply that did not come must be in doubt, or be an apology for a failed model.
    """
    apologies = Counter(sent.chat for sent in one.api.sent if sent.text == Texts().failed)
    notices = Counter(sent.chat for sent in one.api.sent if sent.text == Texts().notice)
    with _looking(one) as db:
        rows = db.rows("SELECT chat, count(*) FROM outgoing WHERE state = 'doubtful' GROUP BY chat")
        doubts: dict[int, int] = dict(rows)
        recorded = db.value("SELECT count(*) FROM messages WHERE NOT mine")
        planned = {line for (text,) in db.rows("SELECT text FROM messages WHERE mine") for line in text.split("\n")}
        twice_failed = "SELECT 1 FROM predictions p WHERE p.conversation = m.conversation AND p.upto >= m.id"
        twice_failed += " AND p.state IN ('failed', 'lost') GROUP BY p.upto HAVING count(*) > 1"
        rows = db.rows(f"SELECT m.text FROM messages m WHERE NOT m.mine AND EXISTS ({twice_failed})")
        failed = {text.upper() for (text,) in rows}
    missing = {said: int(said[1:].split("N")[0]) for said in one.said if not one.came[said]}
    # What was planned can only be in doubt; what was not, can only be among what the model failed at.
    unexplained = sum(not (doubts.get(chat) if said in planned else said in failed) for said, chat in missing.items())
    twice = sum(count > 1 for count in one.came.values())
    # A notice alone is said again, with the next message, where its sending was in doubt.
    twice += sum(count > 1 + doubts.get(chat, 0) for chat, count in notices.items())
    answered = sum(bool(one.came[said]) for said in one.said)
    figures = {
        "messages said": total,
        "messages recorded": recorded,
        "answered once": answered - sum(count > 1 for count in one.came.values()),
        "answered twice": twice,
        "not seen answered: reply in doubt, or an apology of which one stands for a burst": len(missing),
        "of which nothing tells why": unexplained,
        "sendings in doubt, of which none but a notice is repeated": sum(doubts.values()),
        "apologies for a model that failed twice": sum(apologies.values()),
    }
    return figures, recorded == total and not twice and not unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--chats", type=int, default=CHATS)
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, help="of each chat in the soak (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=("latency", "at-once", "soak"), help="these parts")
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    os.environ.setdefault("TELEGRAM_BOT_TOKEN", "unused")
    os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)) or {0})
    packages = ", ".join(f"{name} {version(name)}" for name in ("python-telegram-bot", "httpx", "httpx2"))
    parts = ["# The bot", f"```\n{' '.join(['python -m benchmarks.bot', *sys.argv[1:]])}\n```"]
    parts.append(f"{date.today()}; {machine()}; {packages}. The bot on one core, the servers on the others.")
    runs = {
        "latency": lambda: latency(min(300, args.chats)),
        "at-once": lambda: at_once(args.chats, 10),
        "soak": lambda: soak(args.chats, args.messages, args.seed),
    }
    for name in args.only or runs:
        found = runs[name]()
        print("\n\n".join(found), flush=True)
        parts += found
    if args.record:
        RESULT.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return int(any("NOT met" in part for part in parts))


if __name__ == "__main__":
    sys.exit(main())
