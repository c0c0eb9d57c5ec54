"""Token lengths against training's own counting, and the estimate against counts of Mistral's tokenizer."""

from datetime import timedelta
from pathlib import Path

import pytest

from replicate_deployment.chat_format import render
from replicate_deployment.tokenization import encode, load_tokenizer
from tests.training.preparation.test_leakage import MONDAY, Row, pairs, prepared
from training.preparation import checks as module
from training.preparation.checks import token_lengths
from training.preparation.dataset import Prepared
from training.tokens import estimate, try_load_tokenizer

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
