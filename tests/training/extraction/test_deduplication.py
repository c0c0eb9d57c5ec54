import csv
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.extraction.csv_file import path_in, write
from training.extraction.deduplication import Conversation, Conversations, _sampled
from training.extraction.platform import Chat, Kind, Record

CHAT = Chat("bob", "Bob", is_id=False)


def said(*messages: str, sender: str = "Lea", minute: int = 0, chat: Chat = CHAT) -> list[Record]:
    return [Record(chat, f"2022-03-13T14:{minute:02}:00", sender, text, Kind.MESSAGE, 1) for text in messages]


def conversation(*messages: Record, chat: Chat = CHAT) -> Conversation:
    return Conversation("whatsapp", chat, list(messages))


def written(folder: Path, *messages: Record) -> Path:
    path = path_in(folder, "whatsapp", "Bob", {})
    write(conversation(*messages).in_time_order(), path)
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_what_is_compared_is_chosen_alike_in_every_run() -> None:
    messages = said(*(f"a message of some length, {number}" for number in range(40)))
    sums = [crc32(f"2022-03-13T14:00\n{record.text}".encode()) for record in messages]
    assert _sampled(messages) == [each for each in sums if each % 2 == 0] != []


def test_overlap_is_removed_once_and_counted() -> None:
    together = conversation()
    assert together.add(said("ok", "ok", "bye")) == 0
    assert together.add(said("ok", "ok", "ok", "new")) == 2
    assert together.add(said("ok", "new")) == 2
    assert [record.text for record in together.messages] == ["ok", "ok", "bye", "ok", "new"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("2024-03-10T13:00:00+02:00", "Lea", "hi", "7"), ("2024-03-10T07:00:00-04:00", "Lea", "hi", "7")),
        (("2024-03-10T13:00:00", "Lea", "hi", "7"), ("2024-03-10T13:00:00+02:00", "Léa M.", "hi", "7")),
        (("2024-03-10T13:00:00+02:00", "Lea", "hi", ""), ("2024-03-10T11:00:00+00:00", "Lea", "hi", "")),
        (("2024-03-10T13:00:00", "Lea", "hi", ""), ("2024-03-10T13:00:41", "Lea", "hi", "")),
    ],
    ids=["another zone", "renamed, and the first without an offset", "the same instant", "Android and iOS"],
)
def test_a_message_is_known_in_another_spelling(
    first: tuple[str, str, str, str], second: tuple[str, str, str, str]
) -> None:
    stamped = [Record(CHAT, stamp, who, text, Kind.MESSAGE, 1, id) for stamp, who, text, id in (first, second)]
    for one, other in (stamped, reversed(stamped)):
        together = conversation(one)
        assert together.add([other, other]) == 1  # the second of the two is another message


def test_what_differs_is_kept() -> None:
    first = Record(CHAT, "2024-03-10T13:00:00", "Lea", "hi", Kind.MESSAGE, 1)
    for change in ({"timestamp": "2024-03-10T13:01:00"}, {"sender": "Bob"}, {"text": "ho"}, {"id": "7"}):
        assert conversation(first).add([first._replace(**change)]) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (said("later", minute=5), False),
        (said("later", sender="Zoe", minute=5), False),
        (said("hi") + said("later", sender="Zoe", minute=5), True),
    ],
    ids=["a friend of the same name", "other people", "a message in common"],
)
def test_two_chats_may_share_a_title(other: list[Record], same: bool) -> None:
    assert conversation(*said("hi")).holds(CHAT, other) is same


def test_two_friends_of_one_name_are_two_chats_unless_their_messages_overlap() -> None:
    """An export holds all that was said in its time."""
    first = said("a", minute=0) + said("b", minute=9)
    between, within = said("c", minute=5) + said("d", minute=20), said("c", minute=5) + said("d", minute=6)
    for other in (between, within):
        assert not conversation(*first).holds(CHAT, other)
        assert conversation(*first).holds(CHAT, [*other, first[1]])
    assert not conversation(*first).holds(CHAT, said("later", minute=9) + said("later", minute=30))
    group = [record for name in ("Lea", "Bob", "Zoe") for record in said("a", sender=name, minute=9)]
    later = [record for name in ("Lea", "Bob", "Zoe") for record in said("later", sender=name, minute=30)]
    assert conversation(*group).holds(CHAT, later)
    named_in_full = Chat("bob", "Bob", is_id=False, alias="bob ash\nlea roy")
    assert conversation(*first, chat=named_in_full).holds(named_in_full, between)


def test_an_id_needs_no_more_evidence() -> None:
    chat = Chat("7", "Bob", is_id=True)
    assert conversation(*said("hi"), chat=chat).holds(chat, said("later", sender="Zoe"))


def test_a_csv_is_in_time_order_with_file_order_breaking_ties(tmp_path: Path) -> None:
    messages = said("c", minute=2) + said("a", "b", minute=1)
    path = written(tmp_path, *messages)
    assert [row[2] for row in rows(path)] == ["message", "a", "b", "c"]


def at(*stamps: str) -> list[Record]:
    return [Record(CHAT, stamp, "Lea", str(number), Kind.MESSAGE, 1) for number, stamp in enumerate(stamps)]


@pytest.mark.parametrize(
    ("day", "hour", "order"),
    [
        ("2022-10-30", "02", "0 1 2 3 4 5"),
        ("2022-10-30", "12", "0 2 3 1 4 5"),  # a clock repeats no hour at noon,
        ("2022-10-31", "02", "0 2 3 1 4 5"),  # nor on a Monday
    ],
)
def test_the_hour_that_autumn_repeats_comes_twice(day: str, hour: str, order: str) -> None:
    stamps = [f"{day}T{hour}:{minute}:00" for minute in (10, 50, 15, 40, 55)]
    last = f"{day}T{int(hour) + 1:02}:05:00"
    assert " ".join(record.text for record in conversation(*at(*stamps, last)).in_time_order()) == order


def test_where_two_exports_meet_no_hour_is_repeated() -> None:
    together = conversation()
    together.add(at("2022-10-30T02:30:00", "2022-10-30T02:50:00"))
    together.add(at("2022-10-30T02:10:00"))
    assert [record.timestamp[14:16] for record in together.in_time_order()] == ["10", "30", "50"]


def test_times_with_offsets_are_ordered_by_the_instant(tmp_path: Path) -> None:
    stamps = ["2022-03-13T10:00:00+02:00", "2022-03-13T09:30:00+00:00", "2022-03-13T08:10:00.500+00:00"]
    messages = [Record(CHAT, stamp, "Lea", stamp, Kind.MESSAGE, 1) for stamp in stamps]
    path = written(tmp_path, *messages)
    assert [row[0] for row in rows(path)][1:] == [stamps[0], stamps[2], stamps[1]]


def test_any_text_comes_back_from_the_csv(tmp_path: Path) -> None:
    odd = ['a "quoted", field', "two\nlines", "\u2028 \x1e \x85", "=1+1", " blanks ", "👨\u200d👩\u200d👧", ";\t'"]
    path = written(tmp_path, *said(*odd))
    assert path.read_bytes().startswith(b"timestamp,sender,message\n")
    assert [row[2] for row in rows(path)][1:] == odd


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Bob", "Bob"),
        ("a/b\\c:d*e", "a_b_c_d_e"),
        ("..", "chat"),
        ("\n", "_"),
        ("é" * 100, "é" * 60),
        ("Zoë 👩\u200d💻", "Zoë 👩\u200d💻"),
        ("Con", "_Con"),
        ("nul.2", "_nul.2"),
        ("COM1", "_COM1"),
        ("Connie", "Connie"),
    ],
)
def test_titles_become_safe_names(tmp_path: Path, title: str, name: str) -> None:
    assert path_in(tmp_path, "whatsapp", title, {}) == tmp_path / "whatsapp" / f"{name}.csv"


def test_chats_with_one_name_never_overwrite_each_other(tmp_path: Path) -> None:
    titles = ["Bob", "Bob", "bob", "Bob-2"]
    taken: dict[str, int] = {}
    paths = [path_in(tmp_path, "whatsapp", title, taken) for title in titles]
    assert len({path.name.casefold() for path in paths}) == 4


def test_the_names_of_many_chats_with_one_name_are_not_tried_again(tmp_path: Path) -> None:
    class Counting(dict[str, int]):
        tried = 0

        def __contains__(self, key: object) -> bool:
            self.tried += 1
            return super().__contains__(key)

    taken = Counting()
    paths = {path_in(tmp_path, "whatsapp", "Bob", taken) for _ in range(1000)}
    assert len(paths) == 1000
    assert taken.tried < 4000  # half a million before


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    path = written(tmp_path, *said("hi"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([0, 60, 120, -210])), max_size=12))
def test_aware_times_are_ordered_as_instants_whatever_their_offsets(moments: list[tuple[int, int]]) -> None:
    stamps = [
        (datetime(2022, 3, 27, tzinfo=UTC) + timedelta(minutes=minute)).astimezone(timezone(timedelta(minutes=offset)))
        for minute, offset in moments
    ]
    messages = [Record(CHAT, stamp.isoformat(), "Lea", str(n), Kind.MESSAGE, 0) for n, stamp in enumerate(stamps)]
    ordered = conversation(*messages).in_time_order() if messages else []
    assert [int(record.text) for record in ordered] == sorted(range(len(stamps)), key=stamps.__getitem__)


def dialogue(first: int, last: int, *, me: str = "Zoé", other: str = "Maman", chat: Chat = CHAT) -> list[Record]:
    return [
        Record(
            chat,
            f"2022-03-{1 + n // 60:02}T14:{n % 60:02}:00",
            (me, other)[n % 2],
            f"what I say is {n}",
            Kind.MESSAGE,
            0,
        )
        for n in range(first, last)
    ]


@pytest.mark.parametrize("names", [{"me": "Zoé 🌻"}, {"other": "Mum"}, {"me": "Z.", "other": "+33 6 39 98 12 34"}])
def test_somebody_who_is_called_otherwise_later_is_the_same(names: dict[str, str]) -> None:
    together = conversation(*dialogue(0, 300))
    assert together.add(dialogue(100, 400, **names)) == 200
    assert [record.text for record in together.in_time_order()] == [f"what I say is {n}" for n in range(400)]
    assert {record.sender for record in together.messages} == {"Zoé", "Maman"}


def test_a_chat_under_another_title_is_the_same() -> None:
    found = Conversations()
    for chat in (CHAT, Chat("mum", "Mum", is_id=False), Chat("_chat", "_chat", is_id=False)):
        messages = dialogue(0, 300, chat=chat) if chat is CHAT else dialogue(100, 400, other="Mum", chat=chat)
        found.of("whatsapp", chat, messages).add(messages)
    (together,) = found.all
    assert len(together.messages) == 400


def test_what_was_sent_to_everybody_makes_no_two_chats_one() -> None:
    found = Conversations()
    for title in ("a", "b"):
        chat = Chat(title, title, is_id=False)
        messages = [
            record if record.sender == "Zoé" else record._replace(text=f"{title} {record.text}")
            for record in dialogue(0, 200, other=title, chat=chat)
        ]
        found.of("whatsapp", chat, messages).add(messages)
    assert [len(each.messages) for each in found.all] == [200, 200]


def test_two_people_who_agree_now_and_then_stay_two() -> None:
    together = conversation(*dialogue(0, 100))
    others = [
        record if n % 5 else record._replace(text="something else entirely")
        for n, record in enumerate(dialogue(0, 100, other="Papa"))
    ]
    mixed = [record._replace(text=f"{record.text}!") if n % 4 < 2 else record for n, record in enumerate(others)]
    together.add(mixed)
    assert "Papa" in {record.sender for record in together.messages}
