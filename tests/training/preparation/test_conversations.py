"""From CSV to turns: joins and splits at the exact second, and every malformed row named by its line."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghost.errors import DataError
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn, parse, render
from tests.training.preparation import literal
from training.preparation.dataset import Conversation, Messages, arrange, conversations, read

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")


def write_csv(path: Path, rows: list[tuple[str, str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("timestamp", "sender", "message"), *rows])


def _chat(gaps: list[tuple[float, str]]) -> list[tuple[str, str, str]]:
    """(seconds since the previous message, sender) → rows whose text is their number."""
    rows, now = [], NOON
    for number, (gap, sender) in enumerate(gaps):
        now += timedelta(seconds=gap)
        rows.append((now.isoformat(), sender, str(number)))
    return rows


def _talks(folder: Path, zone: ZoneInfo = UTC_ZONE) -> list[Conversation]:
    return conversations(arrange(read(folder, zone).table, {"Ada"}), DEFAULT_LABELS)


def _turns(folder: Path) -> list[list[Turn]]:
    return [talk.turns for talk in _talks(folder)]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0, [[("A:", "0\n1")]]),
        (180, [[("A:", "0\n1")]]),
        (180.001, [[("A:", "0"), ("A:", "1")]]),
        (181, [[("A:", "0"), ("A:", "1")]]),
        (1799, [[("A:", "0"), ("A:", "1")]]),
        (1800, [[("A:", "0")], [("A:", "1")]]),
    ],
)
def test_bursts_and_silences_at_their_borders(tmp_path: Path, gap: float, expected: list[list[Turn]]) -> None:
    write_csv(tmp_path / "chat.csv", _chat([(0, "Ada"), (gap, "Ada")]))
    assert _turns(tmp_path) == expected


def test_a_burst_may_last_longer_than_three_minutes_and_hold_several_people(tmp_path: Path) -> None:
    write_csv(tmp_path / "group.csv", _chat([(0, "Bea"), (170, "Carl"), (170, "Bea"), (1, "Ada"), (1, "Bea")]))
    assert _turns(tmp_path) == [[("B:", "0\n1\n2"), ("A:", "3"), ("B:", "4")]]


def test_the_silence_before_a_conversation_is_measured_between_any_two_messages(tmp_path: Path) -> None:
    write_csv(tmp_path / "chat.csv", _chat([(0, "Ada"), (1000, "Bea"), (1000, "Ada")]))
    assert [len(turns) for turns in _turns(tmp_path)] == [3]


chats = st.lists(
    st.tuples(st.sampled_from([0, 1, 60, 179, 180, 181, 900, 1799, 1800, 1801, 90000]), st.sampled_from("ABC")),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)  # each example writes files
@given(st.lists(chats, min_size=1, max_size=5))
def test_conversations_are_the_literal_ones(tmp_path_factory: pytest.TempPathFactory, gaps: list) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("cleaned")
    expected = []
    for number, chat in enumerate(gaps):
        rows = _chat([(gap, "Ada" if sender == "A" else sender) for gap, sender in chat])
        write_csv(folder / f"{number}.csv", rows)
        messages = [literal.Message(datetime.fromisoformat(time), who == "Ada", text) for time, who, text in rows]
        for talk in literal.conversations(messages):
            turns = [("A:" if turn[0].is_mine else "B:", "\n".join(m.text for m in turn)) for turn in talk]
            expected.append((talk[0][0].time, f"{number}.csv", turns))
    expected.sort(key=lambda item: item[:2])
    assert [(talk.start, talk.path, talk.turns) for talk in _talks(folder)] == expected


def test_conversations_of_all_chats_are_in_order_of_their_start_then_of_path(tmp_path: Path) -> None:
    for path in ("b/x.csv", "a/y.csv", "a-b.csv"):
        write_csv(tmp_path / path, _chat([(0, "Ada")]))
    write_csv(tmp_path / "z.csv", _chat([(-60, "Ada")]))
    assert [talk.path for talk in _talks(tmp_path)] == ["z.csv", "a-b.csv", "a/y.csv", "b/x.csv"]


def test_edges_of_messages_are_stripped_so_that_turns_keep_the_promise_of_the_format(tmp_path: Path) -> None:
    texts = ["\n\n first\r\nsecond \n", " \n ", "A: third"]
    write_csv(tmp_path / "chat.csv", [(NOON.isoformat(), "Ada", text) for text in texts])
    ((turn,),) = _turns(tmp_path)
    assert turn.text == "first\nsecond\nA: third"
    assert parse(render([turn])) == [turn]
    assert read(tmp_path, UTC_ZONE).empty == 1


def test_times_without_offset_are_placed_in_the_zone_and_counted(tmp_path: Path) -> None:
    rows = [("2024-03-01T13:00:00", "Ada", "here"), ("2024-03-01T12:00:30+00:00", "Bea", "there")]
    write_csv(tmp_path / "chat.csv", [*rows, ("2024-03-01T12:01:00Z", "Bea", "zulu")])
    messages = read(tmp_path, ZoneInfo("Europe/Paris"))
    assert messages.table["instant"].tolist() == [NOON, NOON + timedelta(seconds=30), NOON + timedelta(seconds=60)]
    assert (messages.read, messages.without_offset, messages.out_of_order) == (3, 1, 0)


def test_the_hour_that_a_clock_repeats_and_the_one_it_skips(tmp_path: Path) -> None:
    stamps = ["2024-10-27T02:50:00", "2024-10-27T02:55:00", "2024-10-27T02:05:00", "2024-10-27T02:20:00"]
    write_csv(tmp_path / "autumn.csv", [(stamp, "Ada", str(n)) for n, stamp in enumerate(stamps)])
    write_csv(tmp_path / "spring.csv", [("2024-03-31T02:30:00", "Ada", "never was")])
    autumn, spring = sorted(_talks(tmp_path, ZoneInfo("Europe/Paris")), key=lambda talk: talk.path)
    assert [turn.text for turn in autumn.turns] == ["0", "1", "2", "3"]
    assert spring.start == datetime(2024, 3, 31, 1, tzinfo=UTC)


def test_rows_out_of_time_order_are_sorted_and_counted(tmp_path: Path) -> None:
    write_csv(tmp_path / "chat.csv", _chat([(0, "Ada"), (60, "Bea"), (-30, "Ada"), (0, "Bea")]))
    messages: Messages = read(tmp_path, UTC_ZONE)
    assert messages.table["text"].tolist() == ["0", "2", "3", "1"]
    assert messages.out_of_order == 1


GOOD = '2024-03-01T12:00:00Z,Ada,"two\nlines"\n'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("time,who,what\n", r"chat\.csv:1: the header is 'time,who,what', not 'timestamp,sender,message'"),
        ("", r"chat\.csv:1: the header is ''"),
        (f"timestamp,sender,message\n{GOOD}yesterday,Ada,secret\n", r"chat\.csv:4: 'yesterday' is no ISO 8601 time"),
        (f"timestamp,sender,message\n{GOOD},Ada,secret\n", r"chat\.csv:4: '' is no ISO 8601 time"),
        (f"timestamp,sender,message\n{GOOD}{GOOD}2024-03-01,Ada\n", r"chat\.csv:6: 2 fields, not 3"),
        (f"timestamp,sender,message\n{GOOD}2024-03-01,Ada,secret,more\n", r"chat\.csv:4: 4 fields, not 3"),
        (f'timestamp,sender,message\n{GOOD}2024-03-01,Ada,"secret\n', r"chat\.csv:4: not readable as CSV"),
        ("timestamp,sender,message\n2024-03-01,Ada,\udce9\n", r"chat\.csv:2: not UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, content: str, complaint: str) -> None:
    write_csv(tmp_path / "a.csv", _chat([(0, "Ada")] * 3))
    (tmp_path / "chat.csv").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=complaint) as caught:
        read(tmp_path, UTC_ZONE)
    assert "ghost extract" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_long_messages_and_null_characters_are_messages(tmp_path: Path) -> None:
    texts = ["x" * 200_000, "a\x00b"]
    write_csv(tmp_path / "chat.csv", [(NOON.isoformat(), "Ada", text) for text in texts])
    assert read(tmp_path, UTC_ZONE).table["text"].tolist() == texts


@pytest.mark.parametrize("kind", ["missing", "empty", "headers", "blank"])
def test_a_folder_without_messages_names_the_verb_that_fills_it(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "cleaned"
    if kind != "missing":
        folder.mkdir()
    if kind in ("headers", "blank"):
        write_csv(folder / "chat.csv", [(NOON.isoformat(), "Ada", " ")] if kind == "blank" else [])
    with pytest.raises(DataError, match="First: ghost extract"):
        read(folder, UTC_ZONE)
