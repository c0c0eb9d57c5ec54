"""Which replies are held out, and that each is asked once."""

import json
from pathlib import Path

import pytest

from ghost import artifact
from ghost.errors import DataError
from ghost.evaluation import data
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS, Recipe, Turn, render_line
from training.finetuning.data import read_facts

TALK = [Turn("B:" if place % 2 == 0 else "A:", f"turn {place}") for place in range(30)]


def write(folder: Path, train: list[list[Turn]], val: list[list[Turn]], recipe: Recipe = "windows") -> Path:
    """A prepared folder; gives its val.jsonl."""
    folder.mkdir()
    for name, lines in (("train", train), ("val", val)):
        texts = [json.dumps({"text": render_line(turns, recipe=recipe)}) + "\n" for turns in lines]
        (folder / f"{name}.jsonl").write_text("".join(texts), encoding="utf-8")
    hashes = {f"{name}_sha256": ghost_json.sha256(folder / f"{name}.jsonl") for name in ("train", "val")}
    labels = {"me": "A:", "other": "B:"}
    text = {"labels": labels, "recipe": recipe, "stop_sequences": DEFAULT_LABELS.stop_sequences}
    artifact.write(folder, None, text=text, data={"counts": {}, **hashes})
    return folder / "val.jsonl"


def describe(val: Path, places: list[tuple[int, int]]) -> None:
    """`places` are (conversation, last turn) of each line."""
    rows = [
        {"conversation": talk, "first": 0, "last": last, "platform": "whatsapp", "language": "fr"}
        for talk, last in places
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (val.parent / "val.about.jsonl").write_text(text, encoding="utf-8")


def test_a_reply_in_several_windows_is_asked_once_with_its_longest_context(tmp_path: Path) -> None:
    windows = [TALK[:4], TALK[2:12], TALK[8:12], *(TALK[start : start + 4] for start in range(12, 28, 2))]
    val = write(tmp_path / "p", windows, windows)
    describe(val, [(7, turns.index(turns[-1]) + TALK.index(turns[0])) for turns in windows])
    found = data.read_held_out(val, 20)
    assert [one.reply for one in found.exchanges] == [turns[-1].text for turns in windows if turns is not windows[2]]
    eleventh = found.exchanges[1]
    assert (eleventh.reply, len(eleventh.context), eleventh.context[-1]) == ("turn 11", 9, TALK[10])
    assert {(one.platform, one.language, one.conversation) for one in found.exchanges} == {("whatsapp", "fr", 7)}


def test_without_notes_or_with_those_of_other_lines_nothing_is_told_apart(tmp_path: Path) -> None:
    windows = [TALK[:12], TALK[8:12], *(TALK[start : start + 4] for start in range(12, 28, 2)), TALK[:2]]
    val = write(tmp_path / "p", windows, windows)
    for note in (None, '{"conversation": 1}\n', "no JSON\n", ""):
        if note is not None:
            (val.parent / "val.about.jsonl").write_text(note, encoding="utf-8")
        found = data.read_held_out(val, 20)
        assert len(found.exchanges) == len(windows) - 1  # the same answer to the same turn
        assert len(found.exchanges[0].context) == 11
        assert {(one.platform, one.conversation) for one in found.exchanges} == {("", -1)}


def test_a_conversation_has_an_exchange_for_each_reply(tmp_path: Path) -> None:
    silent = [Turn("A:", "anyone?"), Turn("A:", "no?"), Turn("B:", "yes")]
    val = write(tmp_path / "p", [TALK], [TALK, [*silent, Turn("A:", "</s> typed")]], "conversations")
    found = data.read_held_out(val, 20)
    assert [one.reply for one in found.exchanges] == [f"turn {place}" for place in range(1, 30, 2)] + ["</s> typed"]
    assert [len(one.context) for one in found.exchanges[:12]] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 20, 20]
    assert [one.conversation for one in found.exchanges] == [0] * 15 + [1]


@pytest.mark.parametrize(("held_out", "count"), [([TALK[:8]], 4), ([], 0)])
def test_too_little_to_judge_by_is_refused(tmp_path: Path, held_out: list[list[Turn]], count: int) -> None:
    val = write(tmp_path / "p", [TALK], held_out, "conversations")
    with pytest.raises(DataError, match=rf"{count} held-out replies.*at least 10 .*ghost prepare"):
        data.read_held_out(val, 20)


def test_a_lot_is_the_same_every_time_and_keeps_the_order(tmp_path: Path) -> None:
    val = write(tmp_path / "p", [TALK], [TALK], "conversations")
    every = data.read_held_out(val, 20).exchanges
    some = data.sample(every, 5, seed=3)
    assert some == data.sample(every, 5, seed=3)
    assert [every.index(one) for one in some] == sorted(every.index(one) for one in some)
    assert data.sample(every, 500, seed=3) == every


def test_shots_are_whole_exchanges_of_training(tmp_path: Path) -> None:
    pasted = [Turn("B:", "x" * 500), Turn("A:", "tldr")]
    val = write(tmp_path / "p", [TALK[:2], TALK[:2], TALK[2:8], pasted], [TALK[:12]] * 12)
    ghost = read_facts(val.with_name("train.jsonl"), val)
    learnt = data.read_learnt(val.with_name("train.jsonl"), ghost)
    assert learnt.own == ["turn 1", "turn 3", "turn 5", "turn 7", "tldr"]
    assert [len(one.context) for one in learnt.in_full(learnt.exchanges, 4)] == [1, 1, 3, 4, 1]
    assert learnt.in_full(learnt.exchanges[3:4], 2)[0].context == tuple(TALK[5:7])
    assert len(data.shots(learnt, ghost.labels, seed=0, planted={"turn 3", "turn 5"})) == 4
    shown = data.shots(learnt, ghost.labels, seed=0)
    assert [turn.label for turn in shown] == ["B:", "A:"] * data.SHOTS
    assert {(one.text, two.text) for one, two in zip(shown[::2], shown[1::2], strict=True)} == {
        (f"turn {place}", f"turn {place + 1}") for place in (0, 2, 4, 6)
    }
