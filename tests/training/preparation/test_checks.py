"""Each concern where it fires, and one step before. All texts: numbers, two lines, nobody's name, no message."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_deployment.chat_format import Recipe, render
from replicate_deployment.tokenization import encode, load_tokenizer
from training.extraction.speakers import UserConfig
from training.preparation import checks as module
from training.preparation.checks import (
    Concern,
    TokenLengths,
    find_concerns,
    leakage,
    near_duplicates,
    own_languages,
    targets,
    token_lengths,
)
from training.preparation.dataset import Messages, Prepared
from training.tokens import estimate, try_load_tokenizer

MONDAY = datetime(2024, 3, 4, 12, tzinfo=UTC)
Row = tuple[str, datetime, str, str]  # path, time, sender, text


def prepared(rows: Sequence[Row], recipe: Recipe = "windows", zone: str = "UTC") -> Prepared:
    """A data set of Ada's, as `ghost prepare` makes it of these rows."""
    config = UserConfig(user_identifiers=("Ada",), timezone=zone)
    rows = sorted(rows, key=lambda row: row[:2])
    table = pd.DataFrame(
        {
            "path": pd.Categorical([row[0] for row in rows]),
            "instant": pd.DatetimeIndex([row[1] for row in rows], tz="UTC"),
            "sender": pd.Categorical([row[2] for row in rows]),
            "text": pd.Series([row[3] for row in rows], dtype=object),
        }
    )
    return Prepared.of(config, recipe, Messages(table, len(rows), 0, 0, 0), table, {"Ada"})


def pairs(replies: Sequence[str], *, said: str = "and?", path: str = "whatsapp/Bea.csv", days: int = 1) -> list[Row]:
    """Bea says something and Ada replies, once a day: every pair a conversation, the last tenth of them held out."""
    rows = []
    for number, reply in enumerate(replies):
        start = MONDAY + timedelta(days=number * days)
        rows += [(path, start, "Bea", said), (path, start + timedelta(minutes=1), "Ada", reply)]
    return rows


def sentence(number: int, words: int) -> str:
    """`words` words of 9 letters and a blank each, of which no other number has any."""
    return " ".join(f"{number:04}w{place:04}" for place in range(words))


def found(replies: Sequence[str], **more: Any) -> dict[str, Any]:
    return leakage(prepared(pairs(replies, **more)))


def test_a_long_reply_of_both_sides_is_a_leak_and_a_short_one_is_none() -> None:
    long, short = "x" * 50, "y" * 49
    replies = [f"reply {number}" for number in range(18)]
    report = found([*replies[:16], short, long, long.upper() + "  ", short])
    assert report["targets"] == {"train": 18, "val": 2, "from_characters": 50, "compared": 1, "exact": 1, "near": 0}
    assert report["turns_on_both_sides"] == report["messages_on_both_sides"] == 0


def test_a_chinese_character_counts_as_three_letters() -> None:
    for length, compared in ((16, 0), (17, 1)):
        assert found(["好" * length] * 10)["targets"]["compared"] == compared


def test_a_paragraph_with_a_word_changed_is_nearly_the_same_and_one_with_two_changed_is_not() -> None:
    words = sentence(0, 20).split()  # 19 pairs, of which each changed word takes two
    once, twice = [*words], [*words]
    once[5] = twice[5] = twice[12] = "otherword"
    for changed, near in ((once, 1), (twice, 0)):
        report = found([" ".join(words), *(f"reply {number}" for number in range(8)), " ".join(changed)])
        assert (report["targets"]["exact"], report["targets"]["near"]) == (0, near)


def test_context_is_compared_as_a_pasted_paragraph_only() -> None:
    for length, compared in ((199, 0), (200, 1)):
        report = found([f"reply {number}" for number in range(10)], said="z" * length)
        assert report["pasted"] == {"from_characters": 200, "compared": compared, "exact": compared, "near": 0}
        assert report["targets"]["compared"] == 0


def test_walls_are_long_messages_and_copied_paragraphs() -> None:
    replies = ["a" * 100] * 7 + ["b" * 200, "b" * 200, "c" * 1000]  # 2,100 characters, beside 40 of Bea's
    assert found(replies)["walls"] == {
        "from_characters": 1000,
        "messages": 1,
        "copied_texts": 1,
        "copies": 2,
        "share_of_characters": round(1400 / 2140, 4),
        "share_of_your_characters": round(1400 / 2100, 4),
    }
    assert found(["b" * 199] * 10)["walls"]["copies"] == 0


def test_a_chat_in_two_exports_that_straddles_the_split_is_noticed() -> None:
    rows = pairs([f"reply {number}" for number in range(150)])
    end = MONDAY + timedelta(days=200)
    talk = [(end + timedelta(minutes=4 * number), ["Bea", "Ada"][number % 2], f"line {number}") for number in range(20)]
    # One export has the whole talk. The other lacks its first message, so it starts later and validates.
    rows += [("whatsapp/Bea.csv", *line) for line in talk] + [("telegram/Bea.csv", *line) for line in talk[1:]]
    data = prepared(rows)
    assert [talk.path for talk in data.conversations[data.training :]] == ["telegram/Bea.csv"]
    report = leakage(data)
    assert (report["turns_on_both_sides"], report["messages_on_both_sides"]) == (0, 19)


def test_a_conversation_that_was_cut_has_no_turn_on_both_sides() -> None:
    """Not even when the export's clock shows minutes alone."""
    times = [MONDAY + timedelta(minutes=number // 2) for number in range(60)]
    rows = [("w/Bea.csv", time, ["Ada", "Bea"][number % 2], f"line {number}") for number, time in enumerate(times)]
    data = prepared(rows)
    assert (data.held_out, data.training, len(data.conversations)) == ("end_of_last_conversation", 1, 2)
    report = leakage(data)
    assert (report["turns_on_both_sides"], report["messages_on_both_sides"]) == (0, 0)
    assert report["targets"]["val"] > 0


def test_a_turn_that_was_torn_apart_is_counted() -> None:
    data = prepared(pairs([f"reply {number}" for number in range(10)]))
    data.table["turn"] = [*range(17), 17, 17, 18]  # Ada's last reply that trains, and what Bea says after the split
    assert leakage(data)["turns_on_both_sides"] == 1


def test_targets_are_the_last_turns_of_windows_or_all_turns_of_the_person() -> None:
    times = [MONDAY + timedelta(minutes=4 * number) for number in range(9)]
    rows = [("w/Bea.csv", time, ["Ada", "Bea"][number % 2], "hi") for number, time in enumerate(times)]
    rows += pairs(["later"] * 2, days=30)[2:]  # held out
    windows, conversations = targets(prepared(rows)), targets(prepared(rows, "conversations"))
    assert windows[0] < conversations[0] == {0, 2, 4, 6, 8}
    assert windows[0] >= {6, 8}


def test_nothing_held_out_leaks_nothing() -> None:
    report = found(["only"])
    assert report["targets"]["val"] == report["targets"]["compared"] == report["pasted"]["compared"] == 0


def _nearly(one: str, other: str) -> bool:
    a, b = (set(pairwise(text.split(" "))) for text in (one, other))
    return bool(a and b) and 10 * len(a & b) >= 8 * len(a | b)


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)


@given(st.lists(words, max_size=8), st.lists(words, max_size=8))
def test_near_duplicates_are_those_of_comparing_each_with_each(texts: list[str], others: list[str]) -> None:
    assert near_duplicates(texts, others) == sum(any(_nearly(text, other) for other in others) for text in texts)


@given(st.integers(5, 40), st.sets(st.integers(0, 39), max_size=5))
def test_near_duplicates_at_the_border(length: int, changed: set[int]) -> None:
    text = [str(place) for place in range(length)]
    other = [f"{word}!" if place in changed else word for place, word in enumerate(text)]
    one, two = " ".join(text), " ".join(other)
    assert near_duplicates([one], [two]) == _nearly(one, two)


@pytest.mark.parametrize("texts", [["今日はとても良いお天気ですね散歩に行きましょう"]])
def test_scripts_without_blanks_are_compared_by_the_character(texts: list[str]) -> None:
    assert near_duplicates(texts, [texts[0].replace("散", "あ")]) == 1


# Each concern where it fires, and one step before. All texts: numbers, two lines, nobody's name, no message.


FINE = TokenLengths("tokenizer", 1024, 5000, 2000, {"50": 200, "95": 1000, "max": 1500}, 0.95, 0.05, 0.01, 0.0, 10**6)
LEAKAGE: dict[str, Any] = {
    "turns_on_both_sides": 0,
    "messages_on_both_sides": 0,
    "targets": {"train": 1000, "val": 30, "from_characters": 50, "compared": 40, "exact": 0, "near": 0},
    "pasted": {"from_characters": 200, "compared": 0, "exact": 0, "near": 0},
    "walls": {
        "from_characters": 1000,
        "messages": 3,
        "copied_texts": 2,
        "copies": 7,
        "share_of_characters": 0.1,
        "share_of_your_characters": 0.1,
    },
}
LANGUAGES = {"train": {"fr": 0.9, "en": 0.1}, "val": {"fr": 0.6, "en": 0.4}}
REPLY = "a reply of several words"


def mixed(count: int = 20) -> list[Row]:
    """Two chats of a reply a day each, so that no chat and no day dominates."""
    return [*pairs([REPLY] * count), *pairs([REPLY] * count, path="whatsapp/Carl.csv")]


def raised(
    rows: Sequence[Row] | Prepared | None = None,
    leakage: Mapping[str, Any] = LEAKAGE,
    lengths: TokenLengths = FINE,
    languages: Mapping[str, Mapping[str, float]] = LANGUAGES,
) -> dict[str, Concern]:
    data = rows if isinstance(rows, Prepared) else prepared(mixed() if rows is None else rows)
    found = find_concerns(data, leakage, lengths, languages)
    assert len({concern.code for concern in found}) == len(found)
    for concern in found:
        assert len(concern.text) <= 240, concern.code
        assert "\n" not in concern.text
        assert any(map(str.isdigit, concern.text))
        assert not any(word in concern.text for word in ("Bea", "Carl", REPLY, "whatsapp"))
    return {concern.code: concern for concern in found}


def leaking(block: str | None = None, **changes: Any) -> dict[str, Any]:
    return LEAKAGE | changes if block is None else LEAKAGE | {block: LEAKAGE[block] | changes}


def test_good_data_raises_no_concern() -> None:
    assert raised() == {}


@pytest.mark.parametrize(
    ("leakage", "code", "number"),
    [
        (leaking("targets", train=49), "too_few_replies", "49"),
        (leaking("targets", train=50), "few_replies", "50"),
        (leaking("targets", train=999), "few_replies", "999"),
        (leaking("targets", train=1000), None, ""),
        (leaking("targets", val=29), "validation_small", "29"),
        (leaking("targets", val=1), "validation_small", "1"),
        (leaking("targets", val=0), "nothing_held_out", "0"),
        (leaking(turns_on_both_sides=1), "torn_turns", "1"),
        (leaking(messages_on_both_sides=12), "same_messages", "12"),
        (leaking("targets", exact=1, near=1), None, ""),
        (leaking("targets", exact=2, near=1), "leaked_replies", "3 of your 40"),
        (leaking("walls", share_of_characters=0.11), "walls", "11%"),
        (leaking("walls", share_of_your_characters=0.12), "walls", "12%"),
    ],
)
def test_figures_of_leakage(leakage: dict[str, Any], code: str | None, number: str) -> None:
    found = raised(leakage=leakage)
    assert list(found) == ([code] if code else [])
    for concern in found.values():
        assert number in concern.text
        assert concern.severity == ("refuse" if concern.code in ("too_few_replies", "torn_turns") else "warn")


@pytest.mark.parametrize(
    ("lengths", "code", "number"),
    [
        (replace(FINE, within=0.9), None, ""),
        (replace(FINE, within=0.89), "long_lines", "89%"),
        (replace(FINE, within=0.89, counted_by="estimate"), "long_lines", "about 89%"),
        (replace(FINE, skipped=0.01), None, ""),
        (replace(FINE, skipped=0.011), "skipped_lines", "1.1%"),
    ],
)
def test_figures_of_fit(lengths: TokenLengths, code: str | None, number: str) -> None:
    found = raised(lengths=lengths)
    assert list(found) == ([code] if code else [])
    assert all(number in concern.text for concern in found.values())


def test_long_conversations_train_in_pieces_and_are_no_concern() -> None:
    data = prepared(mixed(), "conversations")
    assert raised(data, lengths=replace(FINE, within=0.46, shortened=0.54)) == {}
    assert "skipped_lines" in raised(data, lengths=replace(FINE, skipped=0.02))


@pytest.mark.parametrize(("elsewhere", "fires"), [(8, False), (7, True)])
def test_one_chat_that_dominates(elsewhere: int, fires: bool) -> None:
    rows = pairs([REPLY] * 32) + pairs([REPLY] * elsewhere, path="whatsapp/Carl.csv")  # 32 of 40 are 80%
    assert ("one_chat" in raised(rows)) == fires


@pytest.mark.parametrize(("that_day", "fires"), [(5, False), (6, True)])
def test_one_day_that_dominates(that_day: int, fires: bool) -> None:
    rows = [row for n in range(1, 21) for row in _at(MONDAY + timedelta(days=n))]
    rows += [row for n in range(that_day) for row in _at(MONDAY + timedelta(hours=n))]
    found = raised(rows)
    assert ("one_day" in found) == fires
    if fires:
        assert "2024-03-04, of 21 in all" in found["one_day"].text


def test_the_day_is_that_of_the_time_zone() -> None:
    rows = [*_at(MONDAY.replace(hour=16)), *_at(MONDAY + timedelta(days=1))]
    assert "100% of your turns are of one day, 2024-03-05" in raised(prepared(rows, zone="Asia/Tokyo"))["one_day"].text
    assert "50% of your turns are of one day, 2024-03-04" in raised(rows)["one_day"].text


def _in_group(rows: Sequence[Row]) -> Iterator[Row]:
    for path, time, sender, text in rows:
        yield path, time, sender, text
        if sender == "Bea":
            yield path, time + timedelta(seconds=1), "Dan", text


@pytest.mark.parametrize(("in_group", "fires"), [(10, False), (11, True)])
def test_turns_from_groups(in_group: int, fires: bool) -> None:
    rows = mixed(20) + list(_in_group(pairs([REPLY] * in_group, path="whatsapp/Group.csv")))
    found = raised(rows)
    assert ("groups" in found) == fires


@pytest.mark.parametrize(
    ("train", "val", "code"),
    [
        (0.0, 0.2, "language_shift"),
        (0.0, 0.1, None),  # two of the 20 turns that are held out here: it may be a mistake
        (0.05, 0.25, "language_shift"),
        (0.06, 0.25, None),
    ],
)
def test_a_language_of_validation_only(train: float, val: float, code: str | None) -> None:
    data = prepared(mixed(130))
    held_out = sum(len(talk.turns) // 2 for talk in data.conversations[data.training :])
    assert held_out == 26
    shares = {"train": {"fr": 1 - train, "es": train}, "val": {"fr": 1 - val, "es": val}}
    assert ("language_shift" in raised(data, languages=shares)) == (code is not None)
    unknown = {"train": {"fr": 1.0}, "val": {"fr": 0.5, "und": 0.5}}
    assert "language_shift" not in raised(data, languages=unknown)


def test_languages_of_the_persons_turns_on_both_sides() -> None:
    french, german = "on se retrouve demain soir devant la gare", "wir treffen uns morgen abend vor dem bahnhof"
    data = prepared(pairs([french] * 18 + [german] * 2, said="see you tomorrow evening at the station"))
    shares = own_languages(data)
    assert shares == {"train": {"fr": 1.0}, "val": {"de": 1.0}}


@pytest.mark.parametrize(("days", "fires"), [(7, False), (6.9, True)])
def test_a_validation_of_one_week(days: float, fires: bool) -> None:
    """The held-out tenth of 20 conversations is two, so many days apart."""
    start = MONDAY - timedelta(days=72)
    rows = [row for n in range(18) for row in _at(start + timedelta(days=4 * n))]
    rows += [row for n in range(2) for row in _at(MONDAY + timedelta(days=days * n))]
    assert ("one_week_held_out" in raised(rows)) == fires


def test_a_week_held_out_of_a_short_time_is_as_it_should_be() -> None:
    assert "one_week_held_out" not in raised(mixed(35))  # 34 days


def _at(time: Any) -> list[Row]:
    return [("whatsapp/Bea.csv", time, "Bea", "and?"), ("whatsapp/Bea.csv", time + timedelta(minutes=1), "Ada", REPLY)]


@pytest.mark.parametrize(("short", "fires"), [(20, False), (21, True)])
def test_replies_of_one_word(short: int, fires: bool) -> None:
    replies = ["ok!"] * short + [REPLY] * (40 - short)
    rows = pairs(replies[::2]) + pairs(replies[1::2], path="whatsapp/Carl.csv")
    assert ("one_word" in raised(rows)) == fires


def test_a_sentence_without_blanks_is_not_one_word() -> None:
    assert "one_word" not in raised(pairs(["我明天去看医生"] * 20))


def test_a_large_silent_gap() -> None:
    times = [MONDAY + timedelta(minutes=4 * n) for n in range(7)]
    talk = [("whatsapp/Bea.csv", time, ["Ada", "Bea"][n % 2], REPLY) for n, time in enumerate(times)]
    talk += pairs(["later"] * 2, days=30)[2:]  # held out: a reply, which a window ends in
    data = prepared(talk)  # replies at 2, 4 and 6, and one window, which ends in 6
    silent = replace(data, examples=data.examples._replace(seeds=[[], []]))
    assert "2 of your 4 replies (50%)" in raised(silent)["silent_replies"].text
    assert "silent_replies" not in raised(replace(silent, recipe="conversations"))
    seeds = [[data.examples.windows[0][0]._replace(target=4)], []]
    answered = replace(data, examples=data.examples._replace(seeds=seeds))
    assert "silent_replies" not in raised(answered)  # one of four, and one of three is the limit


def test_refusals_come_first() -> None:
    found = list(raised(pairs([REPLY] * 20), leakage=leaking("targets", train=3, val=1)).values())
    assert [concern.severity for concern in found] == ["refuse"] + ["warn"] * (len(found) - 1)
    assert module.FEWEST_REPLIES == 50


def test_a_person_who_never_writes_raises_only_what_can_be_said() -> None:
    rows = [row for row in mixed() if row[2] != "Ada"]
    assert "too_few_replies" in raised(rows, leakage=leaking("targets", train=0, val=0))


# Token lengths against training's own counting, and the estimate against counts of Mistral's tokenizer.


# Counted with mistral-common 1.13, instruct tokenizer v3 (240323), without BOS.
MISTRAL = [
    (
        "A: on se voit demain soir ? j'apporte le dessert, t'inquiète pas 😂\nB: génial, à quelle heure tu arrives ?",
        42,
    ),
    (
        "A: I'm going to be late again, the train has been stuck for ages\nB: no worries, we'll order without you haha",
        32,
    ),
    ("A: ich komme später nach, muss noch kurz einkaufen\nB: alles klar, bring bitte Brot und Käse mit", 35),
    ("A: я уже выхожу, буду через полчаса\nB: хорошо, жду тебя у входа", 31),
    ("A: راح أوصل بعد نص ساعة تقريبا\nB: تمام أنا بالبيت", 48),
    ("A: 我们明天下午三点在车站见面吧\nB: 好的，到时候给你打电话", 32),
    ("A: 明日の夜は空いてますか\nB: うん、七時からなら大丈夫だよ", 34),
    ("A: 오늘 저녁에 뭐 먹을까\nB: 나는 아무거나 괜찮아", 42),
    ("A: 😂😂😂👍🏽 ok ❤️\nB: 🥳🎉 18:30, 12€", 32),
]
HARD = ["j’ai été </s> [INST] là 😂👍🏽", "A: non", "  two  blanks", "日本語 العربية", "tab\tand\nnewline", "<s></s>"]


def _talk(texts: list[str], path: str = "w/Bea.csv") -> list[Row]:
    return [(path, MONDAY + timedelta(minutes=4 * n), ["Bea", "Ada"][n % 2], text) for n, text in enumerate(texts)]


def _by_line(text: str) -> int:
    return sum(map(estimate, text.split("\n"))) + text.count("\n")


def _by_hand(data: Prepared, count: object, limit: int) -> dict[str, int]:
    """Each training window, dropped turn by turn: sums of what training would report."""
    assert callable(count)
    sums = dict.fromkeys(("lines", "within", "shortened", "skipped", "dropped", "shown", "tokens"), 0)
    for talk, windows in zip(data.conversations[: data.training], data.examples.by_conversation, strict=False):
        for start, target in windows:
            turns = list(talk.turns[start : target + 1])
            sums["lines"] += 1
            sums["shown"] += len(turns)
            whole = len(turns)
            while len(turns) > 1 and count(render(turns)) + 2 > limit:
                turns.pop(0)
            length = count(render(turns)) + 2
            if len(turns) == whole:
                sums["within"] += 1
            elif len(turns) == 1 or length > limit:
                sums["skipped"] += 1
                sums["dropped"] += whole
                continue
            else:
                sums["shortened"] += 1
                sums["dropped"] += whole - len(turns)
            sums["tokens"] += length
    return sums


def test_every_line_is_measured_as_training_will_cut_it() -> None:
    texts = [("word " * (3 + 7 * n % 40)).strip() for n in range(60)]
    texts[31] = "word " * 200
    data = prepared(_talk(texts) + pairs(["later"] * 7, days=30)[2:])
    expected, found = _by_hand(data, _by_line, 100), token_lengths(data, None, 100)
    assert expected["skipped"] > 0
    assert expected["shortened"] > 0
    lines = expected["lines"]
    assert (found.lines, found.sampled, found.counted_by) == (lines, lines, "estimate")
    assert found.within == round(expected["within"] / lines, 4)
    assert found.shortened == round(expected["shortened"] / lines, 4)
    assert found.skipped == round(expected["skipped"] / lines, 4)
    assert found.turns_dropped == round(expected["dropped"] / expected["shown"], 4)
    assert found.tokens_per_epoch == expected["tokens"]
    assert list(found.quantiles) == ["50", "90", "95", "99", "max"]
    assert sorted(found.quantiles.values()) == list(found.quantiles.values())


def test_a_large_data_set_is_sampled_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("word " * (1 + n % 9)).strip() for n in range(400)]
    data = prepared(_talk(texts))
    whole = token_lengths(data, None, 1024)
    monkeypatch.setattr(module, "SAMPLE", 100)
    sampled = token_lengths(data, None, 1024)
    assert (sampled.lines, sampled.sampled) == (whole.lines, 100)
    assert sampled == token_lengths(data, None, 1024)
    assert sampled.tokens_per_epoch == pytest.approx(whole.tokens_per_epoch, rel=0.05)


def test_whole_conversations_are_cut_and_nothing_is_dropped() -> None:
    data = prepared(_talk(["word"] * 40) + pairs(["later"] * 4, days=30)[2:], "conversations")
    found = token_lengths(data, None, 50)
    assert found.lines == data.training
    assert (found.shortened, found.turns_dropped, found.skipped) == (round(1 / found.lines, 4), 0.0, 0.0)
    one_turn = token_lengths(prepared(_talk(["word " * 100, "ok"]), "conversations"), None, 50)
    assert (one_turn.skipped, one_turn.shortened) == (1.0, 0.0)


def test_the_tokenizer_at_hand_counts_what_training_counts(tiny_base: Path) -> None:
    tokenizer, trainings = try_load_tokenizer(str(tiny_base)), load_tokenizer(tiny_base)
    assert tokenizer is not None
    data = prepared(pairs(HARD * 3))
    found = token_lengths(data, tokenizer, 1024)
    assert found.counted_by == "tokenizer"
    expected = _by_hand(data, lambda text: len(encode(trainings, text).ids) - 1, 1024)
    assert found.tokens_per_epoch == expected["tokens"]


@pytest.mark.parametrize("base", ["no/such-base-was-cached", "not a repo", "empty"])
def test_without_a_tokenizer_at_hand_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert try_load_tokenizer(base) is None
    (tmp_path / "empty" / "tokenizer.json").write_text("{", encoding="utf-8")
    assert try_load_tokenizer(base) is None


@pytest.mark.parametrize(("text", "tokens"), MISTRAL)
def test_the_estimate_is_near_to_mistrals_tokenizer(text: str, tokens: int) -> None:
    assert estimate(text) == pytest.approx(tokens, rel=0.25)


def test_an_empty_split_measures_nothing() -> None:
    found = token_lengths(prepared([("w/Bea.csv", MONDAY, "Ada", "alone")]), None, 1024)
    assert (found.lines, found.sampled, found.tokens_per_epoch, found.quantiles) == (0, 0, 0, {})
