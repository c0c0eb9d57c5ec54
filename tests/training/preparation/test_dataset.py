"""From CSV rows to lines: messages, conversations, windows, split, beside the contract read literally."""

import csv
import itertools
import json
import random
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ghost.errors import DataError
from replicate_deployment.chat_format import (
    DEFAULT_LABELS,
    END_TOKEN,
    RECIPES,
    SPECIAL_STRINGS,
    Labels,
    Recipe,
    Turn,
    parse,
    parse_line,
    render,
)
from tests.training.preparation import literal
from training.preparation.dataset import (
    Conversation,
    Examples,
    Messages,
    Window,
    arrange,
    conversations,
    draw_seeds,
    exposure,
    gives_line,
    holds_special_string,
    instants,
    make_examples,
    make_lines,
    read,
    replies,
    split,
    training_conversations,
    window_lines,
    windows,
)
from training.tokens import fit_window

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
        (f"timestamp,sender,message\n{GOOD}9999-12-31T23:00:00-05:00,Ada,secret\n", r"chat\.csv:4: .* 1 to 9999"),
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


# Texts to instants: the quick reading equals pandas', and the hour that a clock repeats keeps its order.


PARIS = ZoneInfo("Europe/Paris")


def _utc(stamps: list[str], zone: ZoneInfo = UTC_ZONE, chats: list[int] | None = None) -> list[datetime | None]:
    found, _ = instants(stamps, np.array(chats or [0] * len(stamps)), zone)
    return [None if np.isnat(one) else one.astype(datetime).replace(tzinfo=UTC) for one in found]


offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1, 1, 3), datetime(9998, 12, 28), timezones=st.none() | offsets)


@given(st.lists(times.map(lambda time: time.replace(microsecond=0)), max_size=8))
def test_the_quick_reading_is_pythons(moments: list[datetime]) -> None:
    expected = [moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC) for moment in moments]
    assert _utc([moment.isoformat() for moment in moments]) == expected


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-03-01T12:00:00",
        "2024-03-01T12:00:00+01:00",
        "2024-03-01T12:00:00-00:30",
        "2024-03-01T12:00:00Z",
        "2024-03-01T12:00:00.250",
        "2024-03-01T12:00:00.123456+02:00",
        "2024-03-01 12:00:00",
        "2024-03-01T12:00",
        "2024-03-01",
        "20240301T120000",
        "2024-02-30T12:00:00",
        "2024-13-01T12:00:00",
        "2024-03-01T24:00:00",
        "2024-03-01T12:60:00",
        "2024-03-01T12:00:0x",
        "2024-03-01x12:00:00",
        "2024-03-01T12:00:00x01:00",
        "2024-03-01T12:00:00+99:00",
        "2024-03-01T12:00:00+0100",
        "2024-03-01T12:00+01",
        "٢٠٢٤-03-01T12:00:00",
        "yesterday",
        "",
    ],
)
def test_every_other_form_is_what_pandas_makes_of_it(stamp: str) -> None:
    alone = pd.to_datetime(pd.Series([stamp], dtype=object), format="ISO8601", utc=True, errors="coerce")[0]
    expected = None if alone is pd.NaT else alone.to_pydatetime()
    assert _utc([stamp]) == [expected]
    good = datetime(2020, 1, 1, tzinfo=UTC)
    beside = ["2020-01-01T00:00:00", "2020-01-01T00:00:00+00:00"]
    assert _utc([*beside, stamp, *beside]) == [good, good, expected, good, good]


def _minutes_after_midnight(stamps: list[str], chats: list[int] | None = None) -> list[float]:
    """Of the night to the 27th of October 2024, when Paris has the hour from two to three twice. UTC."""
    midnight = datetime(2024, 10, 27, tzinfo=UTC)
    found = _utc([f"2024-10-27T{stamp}:00" if len(stamp) == 5 else stamp for stamp in stamps], PARIS, chats)
    return [(one - midnight) / timedelta(minutes=1) for one in found if one]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (["01:59", "02:50", "02:05", "03:00"], [-1, 50, 65, 120]),
        # Later than everything of the first pass, and still of the second.
        (["02:50", "02:05", "02:20", "02:55", "03:10"], [50, 65, 80, 115, 130]),
        # Without a step back nothing tells that the hour came twice.
        (["02:05", "02:50", "03:10"], [5, 50, 130]),
        (["02:05", "02:05"], [5, 5]),
        # Not in time order at all: newest first.
        (["03:10", "02:50", "02:20", "02:05"], [130, 50, 20, 5]),
        # Two exports, one behind the other: the step back is where they meet.
        (["02:05", "02:50", "03:10", "02:20", "03:20"], [5, 50, 130, 20, 140]),
        # Where the export knows the offset there is nothing to tell; it neither starts the second pass nor ends it.
        (["02:50", "2024-10-27T02:10:00+02:00", "02:55"], [50, 10, 55]),
        (["02:50", "2024-10-27T02:59:00+01:00", "02:05", "02:55"], [50, 119, 65, 115]),
    ],
)
def test_the_second_pass_of_an_hour_starts_at_the_step_back(stamps: list[str], expected: list[float]) -> None:
    assert _minutes_after_midnight(stamps) == expected


def test_each_chat_has_its_own_step_back() -> None:
    assert _minutes_after_midnight(["02:50", "02:05", "02:20", "02:55"], [0, 1, 1, 1]) == [50, 5, 20, 55]
    assert _minutes_after_midnight(["02:50", "02:05", "02:20", "02:10"], [0, 0, 1, 1]) == [50, 65, 20, 70]


def test_every_autumn_has_its_own_step_back() -> None:
    stamps = ["2023-10-29T02:50:00", "2024-10-27T02:10:00", "2024-10-27T02:05:00"]
    assert _utc(stamps, PARIS) == [
        datetime(2023, 10, 29, 0, 50, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 10, tzinfo=UTC),
        datetime(2024, 10, 27, 1, 5, tzinfo=UTC),
    ]


def test_a_time_that_a_clock_skipped_is_the_moment_it_was_put_forward() -> None:
    assert _utc(["2024-03-31T02:30:00"], PARIS) == [datetime(2024, 3, 31, 1, tzinfo=UTC)]


# Windows and seeds against the contract, read literally.


sides = st.lists(st.booleans(), max_size=40)


def _literally(mine: list[bool]) -> list[Window]:
    return [Window(positions[0], positions[-1]) for positions in literal.windows(mine)]


def test_every_conversation_of_up_to_twelve_turns() -> None:
    for length in range(1, 13):
        for mine in itertools.product([False, True], repeat=length):
            assert windows(mine) == _literally(list(mine)), mine


def test_thousands_of_longer_conversations() -> None:
    random_sides = random.Random(7)
    for _ in range(3000):
        share = random_sides.choice([0.1, 0.5, 0.9])  # one-sided talk shrinks windows far
        mine = [random_sides.random() < share for _ in range(random_sides.randint(13, 60))]
        assert windows(mine) == _literally(mine), mine


@pytest.mark.parametrize(
    ("mine", "expected"),
    [
        ([], []),
        ([True], []),
        ([True, False], []),
        ([False, True], [(0, 1)]),
        ([False, True, True, True], [(0, 1)]),
        ([True, False, True, False, True, False], [(0, 4)]),
        ([False, True] * 4, [(0, 5)]),
    ],
)
def test_small_conversations(mine: list[bool], expected: list[tuple[int, int]]) -> None:
    assert windows(mine) == expected


@given(st.lists(sides, max_size=12))
def test_seeds_are_a_tenth_of_the_replies_with_what_they_answer(conversations: list[list[bool]]) -> None:
    seeds = draw_seeds(conversations)
    eligible = sum(len(replies(mine)) for mine in conversations)
    assert abs(sum(map(len, seeds)) - eligible / 10) <= 0.5
    for mine, drawn in zip(conversations, seeds, strict=True):
        assert len(set(drawn)) == len(drawn)
        assert all(target == start + 1 and mine[target] and not mine[start] for start, target in drawn)
    assert draw_seeds(conversations) == seeds


def test_a_seed_equal_to_a_window_is_not_added() -> None:
    found = make_examples("windows", [[False, True]] * 50)
    assert found.drawn == 5
    assert found.by_conversation == [[Window(0, 1)]] * 50


def test_a_seed_is_added_to_the_windows_of_its_own_conversation() -> None:
    found = make_examples("windows", [[True] + [False, True] * 5] * 20)
    assert found.drawn == 10
    assert sum(map(len, found.seeds)) == 10
    assert [len(some) for some in found.by_conversation] == [
        len(some) + len(seeds) for some, seeds in zip(found.windows, found.seeds, strict=True)
    ]


def _count_letters(turns: list[Turn]) -> int:
    return sum(len(turn.text) for turn in turns)


@given(st.lists(st.text("x", min_size=1, max_size=9), min_size=1, max_size=13), st.integers(0, 60))
def test_fit_drops_whole_turns_from_the_front_and_no_more_than_needed(texts: list[str], limit: int) -> None:
    turns = [Turn("B:", text) for text in texts]
    kept = list(fit_window(turns, _count_letters, limit))
    assert kept == turns[-len(kept) :]
    assert len(kept) == 1 or _count_letters(kept) <= limit
    assert len(kept) == len(turns) or _count_letters(turns[-len(kept) - 1 :]) > limit


# Both recipes: their lines, and how often an epoch shows a turn.


TALK = [
    Turn("A:", 'hey </s>\nyou, "'),
    Turn("B:", "x</s>"),
    Turn("A:", "one"),
    Turn("A:", "two\n</s>"),
    Turn("B:", "bye"),
]


def _texts(recipe: Recipe, turns: list[Turn], stretches: list[Window], labels: Labels = DEFAULT_LABELS) -> list[str]:
    content = make_lines(recipe, turns, stretches, labels).decode()
    assert content.endswith("\n")
    texts = [json.loads(line)["text"] for line in content.split("\n")[:-1]]
    assert content == "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return texts


def test_a_conversation_is_one_line_in_which_each_turn_of_the_person_ends() -> None:
    (text,) = _texts("conversations", TALK, [Window(0, 4)])
    assert text == 'A: hey </s>\nyou, "</s>\nB: x</s>\nA: one</s>\nA: two\n </s></s>\nB: bye'
    assert parse_line(text, recipe="conversations") == TALK


def test_a_window_ends_once() -> None:
    assert _texts("windows", TALK, [Window(0, 2), Window(1, 2)]) == [
        'A: hey </s>\nyou, "\nB: x</s>\nA: one</s>',
        "B: x</s>\nA: one</s>",
    ]


def test_other_labels_end_other_turns() -> None:
    labels = Labels(me="Moi:", other="A:")
    (text,) = _texts("conversations", [Turn("A:", "tu viens ?"), Turn("Moi:", "oui")], [Window(0, 1)], labels)
    assert text == "A: tu viens ?\nMoi: oui</s>"


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_gives_no_line(recipe: Recipe) -> None:
    assert make_lines(recipe, TALK, [], DEFAULT_LABELS) == b""


def test_conversations_are_whole_have_no_seeds_and_need_the_person() -> None:
    found = make_examples("conversations", [[False, False], [False, True] * 20, [True], [False]])
    assert found == Examples([[], [Window(0, 39)], [Window(0, 0)], []], [[], [], [], []], 0)


def test_exposure_of_windows() -> None:
    """Eight turns, sides by turns: one window of six, which shrinks by one turn, and a seed."""
    mine = [False, True] * 4
    found = Examples([[Window(0, 5)]], [[Window(6, 7)]], 1)
    assert exposure("windows", [mine], found).figures == {
        "own_turns": {"total": 4, "never_a_target": 2, "share": 0.5},
        "replies": {"total": 4, "never_a_target": 2, "share": 0.5},
        "times_a_turn_is_shown": {"mean": 1.0, "turns_by_times": {"0": 0, "1": 8}},
    }


def test_exposure_of_conversations() -> None:
    sides = [[True, False, True, True], [False, False]]
    assert exposure("conversations", sides, make_examples("conversations", sides)).figures == {
        "own_turns": {"total": 3, "never_a_target": 0, "share": 0.0},
        "replies": {"total": 1, "never_a_target": 0, "share": 0.0},
        "times_a_turn_is_shown": {"mean": 0.67, "turns_by_times": {"0": 2, "1": 4}},
    }


def test_exposure_of_nothing() -> None:
    assert exposure("windows", [], Examples([], [], 0)).figures == {
        "own_turns": {"total": 0, "never_a_target": 0, "share": 0.0},
        "replies": {"total": 0, "never_a_target": 0, "share": 0.0},
        "times_a_turn_is_shown": {"mean": 0.0, "turns_by_times": {}},
    }


def test_a_long_chat_by_turns_is_shown_twelve_times_by_windows_and_once_by_conversations() -> None:
    talk = [[False, True] * 500]
    shown = exposure("windows", talk, make_examples("windows", talk))
    assert shown.figures["times_a_turn_is_shown"]["mean"] == pytest.approx(12, abs=1)
    assert exposure("conversations", talk, make_examples("conversations", talk)).shown == [0, 1000]


# What trains and what is held out: at 90% of the turns, and otherwise the last that gives a line.


@given(st.lists(st.integers(1, 50), max_size=60))
def test_the_rule_of_record_is_the_literal_one(turn_counts: list[int]) -> None:
    training = training_conversations(turn_counts)
    sides = [literal.trains(turn_counts, index) for index in range(len(turn_counts))]
    assert sides == [index < training for index in range(len(turn_counts))]


@pytest.mark.parametrize(
    ("turn_counts", "training"),
    [([], 0), ([40], 1), ([9, 1], 1), ([8, 1, 1], 2), ([1] * 10, 9), ([1] * 11, 10), ([1, 100, 1], 2)],
)
def test_the_rule_of_record_at_its_borders(turn_counts: list[int], training: int) -> None:
    assert training_conversations(turn_counts) == training


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), max_size=12), st.sampled_from(RECIPES))
def test_the_split_is_the_literal_one(talks: list[list[bool]], recipe: Recipe) -> None:
    training, cut, held_out = split(talks, partial(gives_line, recipe))
    assert ((training - 1, cut) if cut else (training, 0)) == literal.first_held_out(talks, recipe)
    head = [*talks[:training], *([talks[training - 1][:cut]] if cut else [])]
    tail = [*([talks[training - 1][cut:]] if cut else []), *talks[training:]]
    assert any(literal.stretches(mine, recipe) for mine in tail) == (held_out != "nothing")
    if held_out in ("last_conversation", "end_of_last_conversation"):
        assert any(literal.stretches(mine, recipe) for mine in head)
        assert 5 * sum(map(len, tail)) <= sum(map(len, talks)) or cut


def _sides(*turn_counts: int) -> list[list[bool]]:
    """By turns, the other side first."""
    return [[bool(turn % 2) for turn in range(count)] for count in turn_counts]


@pytest.mark.parametrize(
    ("talks", "expected"),
    [
        (_sides(*[10] * 10), (9, 0, "by_rule")),
        (_sides(*[10] * 6), (5, 0, "last_conversation")),
        (_sides(*[10] * 13, 20), (13, 0, "last_conversation")),
        (_sides(*[10] * 12, 18, 1), (12, 0, "last_conversation")),  # what the rule holds out is one message of theirs
        (_sides(80, 20), (1, 0, "last_conversation")),
        (_sides(80, 22), (2, 11, "end_of_last_conversation")),  # 91 of 102 turns before it
        (_sides(4, 400), (2, 359, "end_of_last_conversation")),
        (_sides(8), (1, 6, "end_of_last_conversation")),
        (_sides(1, 4), (2, 2, "end_of_last_conversation")),
        ([[False] * 17, *_sides(4)], (2, 2, "end_of_last_conversation")),  # whole, it would leave nothing to learn
        (_sides(1, 2), (2, 0, "nothing")),
        (_sides(1, 1), (2, 0, "nothing")),
        ([], (0, 0, "nothing")),
    ],
)
def test_what_is_held_out(talks: list[list[bool]], expected: tuple[int, int, str]) -> None:
    assert split(talks, partial(gives_line, "windows")) == expected


# The lines, cut from one escaped text, are those that json.dumps writes of each window by itself.


LABELS = [Labels(), Labels("Moi:", "Toi:"), Labels('"\\:', "é😂:")]
texts = st.text(st.sampled_from('ab"",\\\\\n\n :A<\u2028\u2029\x00\x1f\x7f😂'), max_size=12) | st.text(max_size=12)
texts = texts.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
places = st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda pair: Window(min(pair), max(pair)))


@given(st.lists(st.tuples(st.booleans(), texts), min_size=8, max_size=8), st.lists(places), st.sampled_from(LABELS))
@example([(n % 2 == 0, 'x",') for n in range(8)], [Window(0, 7), Window(3, 3)], LABELS[0])
@example([(n % 2 == 0, '","\\n"\n"') for n in range(8)], [Window(1, 4)], LABELS[2])
def test_a_line_is_what_json_dumps_writes(said: list[tuple[bool, str]], windows: list[Window], labels: Labels) -> None:
    turns = [Turn(labels.me if is_mine else labels.other, text) for is_mine, text in said]
    expected = "".join(
        json.dumps({"text": render(turns[start : target + 1], labels) + END_TOKEN}, ensure_ascii=False) + "\n"
        for start, target in windows
    )
    assert window_lines(turns, iter(windows), labels) == expected.encode()


def test_every_character_is_escaped_as_json_dumps_does() -> None:
    for first in range(0, 0x110000, 0x800):
        if first != 0xD800:
            text = "".join(map(chr, range(first, first + 0x800))).replace("\n", "")
            expected = json.dumps({"text": f"A: {text}</s>"}, ensure_ascii=False) + "\n"
            assert window_lines([Turn("A:", text)], [Window(0, 0)], LABELS[0]) == expected.encode()


@pytest.mark.parametrize("special", SPECIAL_STRINGS)
def test_typed_special_strings_are_found(special: str) -> None:
    assert holds_special_string(Turn("B:", f"so: {special}"))
    assert not holds_special_string(Turn("B:", f"so: {special[1:]} < [ >"))
