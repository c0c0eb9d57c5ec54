"""`ghost prepare`, from the command line to the bytes of its files."""

import json
import os
import random
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ghost import artifact
from ghost.cli import main
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import END_TOKEN, Turn, parse, parse_line, render
from tests.training.preparation import literal
from tests.training.preparation.test_dataset import NOON, write_csv
from training.lineage import Known

ROOT = Path(__file__).parents[3]
Capture = pytest.CaptureFixture[str]
WORDS = ["salut", "ok", "plan B: on y va", "\nA: non", "<3", "</s>", "été 😂", "\n\n", 'say "hi"', "C:\\temp"]


def _chats(folder: Path, *, seed: int = 0, chats: int = 4, messages: int = 400) -> dict[str, list[literal.Message]]:
    """Random chats as CSV; also as the literal preparation reads them."""
    rng, found = random.Random(seed), {}
    for number in range(chats):
        now, rows, read = NOON, [], []
        for _ in range(messages):
            now += timedelta(seconds=rng.choice([0, 20, 180, 181, 600, 1799, 1800, 40_000] + [60] * 12))
            sender, text = rng.choice(["Ada", "Bea", "Carl"]), " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
            rows.append((now.isoformat(), sender, text))
            if text.strip():
                read.append(literal.Message(now, sender == "Ada", text.strip()))
        path = f"whatsapp/chat {number}.csv"
        write_csv(folder / path, rows)
        found[path] = read
    return found


def _alternating(count: int, later: timedelta = timedelta(0)) -> list[tuple[str, str, str]]:
    """One conversation of single messages, Bea's first."""
    times = [NOON + later + timedelta(minutes=4 * number) for number in range(count)]
    return [(time.isoformat(), ["Bea", "Ada"][number % 2], f"[at] {time}") for number, time in enumerate(times)]


CONFIG = Path(__file__).parents[3] / "config" / "training_config.yaml"


def _prepare(*arguments: str | Path) -> int:
    """In spite of being so few: what would waste a training run is test_checks.py's."""
    return main(["prepare", "--config", str(CONFIG), "--force", *map(str, arguments)])


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [json.loads(line)["text"] for line in stream]


@pytest.fixture
def cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "cleaned"


def test_the_lines_are_the_literal_windows_and_a_tenth_of_seeds(cleaned: Path, tmp_path: Path) -> None:
    talks = [
        (
            messages[0][0].time,
            path,
            [Turn("A:" if t[0].is_mine else "B:", "\n".join(m.text for m in t)) for t in messages],
        )
        for path, chat in _chats(cleaned).items()
        for messages in literal.conversations(chat)
    ]
    talks.sort(key=lambda talk: talk[:2])
    counts = [len(turns) for _, _, turns in talks]
    expected: dict[bool, list[str]] = {True: [], False: []}
    pairs: dict[bool, list[str]] = {True: [], False: []}
    for index, (_, _, turns) in enumerate(talks):
        side = literal.trains(counts, index)
        for positions in literal.windows([turn.label == "A:" for turn in turns]):
            expected[side].append(render([turns[position] for position in positions]) + END_TOKEN)
        pairs[side] += [
            render([turns[n - 1], turns[n]]) + END_TOKEN
            for n in range(1, len(turns))
            if turns[n].label == "A:" and turns[n - 1].label == "B:"
        ]

    assert _prepare("--me", "ada") == 0
    out = tmp_path / "data" / "processed"
    written = {True: _lines(out / "train.jsonl"), False: _lines(out / "val.jsonl")}
    report = json.loads((out / "preparation_report.json").read_text(encoding="utf-8"))
    for side, name in ((True, "train"), (False, "val")):
        unmatched = iter(expected[side])
        awaited = next(unmatched)
        seeds = []
        for line in written[side]:
            if line == awaited:
                awaited = next(unmatched, "")
            else:
                seeds.append(line)
        assert awaited == "", "every literal window is written, in order"
        assert len(seeds) == report["seeds"][name] > 0
        assert set(seeds) <= set(pairs[side])
    assert report["seeds"]["drawn"] == (len(pairs[True] + pairs[False]) + 5) // 10
    assert report["seeds"]["drawn"] == report["seeds"]["total"] + report["seeds"]["equal_to_a_window"]
    specials = sum("</s>" in line.removesuffix(END_TOKEN) for line in written[True] + written[False])
    assert report["lines"]["with_special_strings"] == specials > 0


def test_every_line_is_what_json_dumps_writes_and_parse_reads(cleaned: Path, tmp_path: Path) -> None:
    _chats(cleaned, chats=1)
    assert _prepare("--me", "Ada") == 0
    content = (tmp_path / "data/processed/train.jsonl").read_text(encoding="utf-8")
    for line in content.split("\n")[:-1]:
        text = json.loads(line)["text"]
        assert line == json.dumps({"text": text}, ensure_ascii=False)
        turns = parse(text.removesuffix(END_TOKEN))
        assert turns[-1].label == "A:"
        assert turns[-2].label == "B:"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_no_turn_is_on_both_sides(cleaned: Path, tmp_path: Path) -> None:
    write_csv(cleaned / "chat.csv", _alternating(60) + _alternating(6, timedelta(days=1)))
    assert _prepare("--me", "Ada") == 0
    sides = [
        {turn for line in _lines(tmp_path / "data/processed" / name) for turn in parse(line.removesuffix(END_TOKEN))}
        for name in ("train.jsonl", "val.jsonl")
    ]
    assert len(sides[0]) > 40
    assert len(sides[1]) == 6
    assert not sides[0] & sides[1]


def test_two_runs_give_the_same_bytes_whatever_the_order_of_files_and_hashes(cleaned: Path, tmp_path: Path) -> None:
    _chats(cleaned, chats=6, messages=150)
    for platform in ("telegram", "sms"):
        _chats(cleaned / platform, seed=5, chats=3, messages=60)
    paths = sorted(path.relative_to(cleaned) for path in cleaned.rglob("*.csv"))
    results = []
    for seed in range(3):
        shuffled = tmp_path / f"cleaned {seed}"
        for path in random.Random(seed).sample(paths, len(paths)):
            (shuffled / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cleaned / path, shuffled / path)
        out = tmp_path / f"processed {seed}"
        command = [sys.executable, "-m", "ghost.cli", "prepare", "--config", str(CONFIG), "--force", "--me", "Ada"]
        subprocess.run(
            [*command, "--cleaned", shuffled, "--out", out],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        results.append(_contents(out))
    assert results[0] == results[1] == results[2]
    assert len(results[0]["train.jsonl"]) > 10_000


def test_ghost_json_carries_the_facts_and_verifies(cleaned: Path, tmp_path: Path) -> None:
    _chats(cleaned)
    config = {"user_identifiers": ["Ada"], "user_label": "Moi:", "other_label": "Toi:"}
    (tmp_path / "mine.json").write_text(json.dumps(config), encoding="utf-8")
    assert _prepare("--user-config", "mine.json") == 0
    out = tmp_path / "data" / "processed"
    ghost = ghost_json.read(out)
    ghost_json.verify(ghost)
    assert ghost.facts["text"] == {
        "labels": {"me": "Moi:", "other": "Toi:"},
        "recipe": "windows",
        "stop_sequences": ["\nToi:", "\n<", "\n\n", "\nMoi:"],
    }
    assert ghost.facts["data"]["train_sha256"] == ghost_json.sha256(out / "train.jsonl")
    assert ghost.facts["data"]["val_sha256"] == ghost_json.sha256(out / "val.jsonl")
    assert ghost.facts["data"]["counts"]["train_lines"] == len(_lines(out / "train.jsonl"))
    report = json.loads((out / "preparation_report.json").read_text(encoding="utf-8"))
    assert report["messages"]["used"] == 1600 - report["messages"]["empty"]
    assert ghost.facts["data"]["counts"]["messages"] == report["in_examples"]["messages"] < report["messages"]["used"]
    assert _lines(out / "train.jsonl")[0].startswith(("Moi: ", "Toi: "))
    held_out = {"val.jsonl", "val.about.jsonl"}
    assert set(ghost.facts["files"]) == {"train.jsonl", *held_out, "preparation_report.json", "report.html"}


def test_json_prints_the_report_and_nothing_else(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    _chats(cleaned)
    assert _prepare("--me", "Ada", "--json") == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "data/processed/preparation_report.json").read_text(encoding="utf-8"))


def test_the_summary_says_what_was_found_and_what_to_type_next(cleaned: Path, capsys: Capture) -> None:
    rows = [(time.removesuffix("+00:00"), sender, text) for time, sender, text in _alternating(8)]
    write_csv(cleaned / "chat.csv", rows)
    assert _prepare("--me", "Ada") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said[:8]] == [
        ["all", "in", "lines"],
        ["messages", "8", "8"],
        ["yours", "4", "4"],
        ["people", "2", "2"],
        ["chats", "1", "1"],
        ["conversations", "2", "2"],
        ["turns", "8", "8"],
        ["your", "turns", "4", "4"],
    ]
    assert said[8:11] == [
        "you             Ada",
        "left out        nobody: there is no config/user_config.json",
        "windows         2 (by turns of context: 1: 1, 5: 1)",
    ]
    assert any("each turn 1.0 times on average; 50% of your replies" in line for line in said)
    assert "held out        1 of your replies" in said
    assert "train / val     1 / 1 lines in data/processed" in said
    assert "note: 8 messages without a UTC offset were placed in UTC" in said
    assert any(line.startswith("warning: ") and "of your replies" in line for line in said)
    assert said[-1] == "next: look at data/processed/report.html, then: ghost estimate"


def test_what_would_waste_a_run_is_refused_unless_forced(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", _alternating(8))
    assert main(["prepare", "--config", str(CONFIG), "--me", "Ada"]) == 1
    said = capsys.readouterr().err
    assert "1 of your replies can train" in said
    assert said.rstrip().endswith("--force")
    assert not (tmp_path / "data" / "processed").exists()


def test_the_folder_is_replaced_as_a_whole_and_keeps_its_gitkeep(cleaned: Path, tmp_path: Path) -> None:
    _chats(cleaned)
    out = tmp_path / "data" / "processed"
    out.mkdir()
    (out / ".gitkeep").touch()
    assert _prepare("--me", "Ada") == 0
    before = _contents(out)
    assert ".gitkeep" in before
    assert _prepare("--me", "Ada") == 0
    assert _contents(out) == before


@pytest.mark.parametrize("existing", ["thesis", "models"])
def test_a_folder_with_other_files_is_refused_untouched(
    cleaned: Path, tmp_path: Path, capsys: Capture, existing: str
) -> None:
    _chats(cleaned, chats=1)
    (tmp_path / "out" / existing).mkdir(parents=True)
    assert _prepare("--me", "Ada", "--out", "out") == 2
    assert f"out is replaced as a whole and holds other files: {existing}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [existing]


def test_a_file_in_place_of_the_folder_is_refused(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").touch()
    assert _prepare("--me", "Ada", "--out", "out") == 2
    assert "out is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "me", "complaint"),
    [
        (["Ada", "Ada"], "Ada", "nothing to train on: 2 of 2 messages are yours"),
        (["Ada", "Bea"], "Ada", "nothing to train on: 1 of 2 messages are yours"),
        (["Bea", "Ada"], "Ad", "--me 'Ad' sent none of these messages"),
        ([], "Ada", "without a single message. First: ghost extract"),
    ],
)
def test_what_cannot_be_prepared_leaves_the_old_data_in_place(
    cleaned: Path, tmp_path: Path, capsys: Capture, rows: list[str], me: str, complaint: str
) -> None:
    write_csv(cleaned / "chat.csv", [(NOON.isoformat(), sender, "secret") for sender in rows])
    out = tmp_path / "data" / "processed"
    out.mkdir()
    (out / "train.jsonl").write_text("old", encoding="utf-8")
    artifact.write(out, None, text={"labels": {"me": "A:", "other": "B:"}, "stop_sequences": []}, data={})
    before = _contents(out)
    assert _prepare("--me", me) == 1
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert "secret" not in captured.err
    assert _contents(out) == before


def test_chats_without_you_are_pointed_out(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    """One person under two names: half of the chats would otherwise be lost in silence."""
    write_csv(cleaned / "one.csv", _alternating(8))
    write_csv(
        cleaned / "two.csv", [(time, {"Ada": "ada_l"}.get(who, who), text) for time, who, text in _alternating(9)]
    )
    assert _prepare("--me", "Ada") == 0
    told = capsys.readouterr().out
    assert "note: 1 of 2 chats hold no message of yours. Who writes most there: " in told
    assert "ada_l" in told
    report = json.loads((tmp_path / "data/processed/preparation_report.json").read_text(encoding="utf-8"))
    assert report["chats_without_you"] == 1
    assert "ada_l" not in json.dumps(report)
    assert _prepare("--me", "Ada", "--me", "ada_l") == 0
    assert "hold no message of yours" not in capsys.readouterr().out


def test_a_chat_whose_two_sides_are_both_named_as_you_is_pointed_out(
    cleaned: Path, tmp_path: Path, capsys: Capture
) -> None:
    """`--me FRIEND` beside your own name: nothing of that chat is learnt."""
    write_csv(cleaned / "one.csv", _alternating(8))
    friend = [(time, {"Bea": "Cleo"}.get(who, who), text) for time, who, text in _alternating(9)]
    write_csv(cleaned / "two.csv", friend)
    assert {who for _, who, _ in friend} == {"Ada", "Cleo"}
    assert _prepare("--me", "Ada", "--me", "Cleo") == 0
    (told,) = (line for line in capsys.readouterr().out.splitlines() if "only messages of yours" in line)
    assert told.startswith("note: 1 of 2 chats")
    assert "Ada" in told
    assert "Cleo" in told
    report = json.loads((tmp_path / "data/processed/preparation_report.json").read_text(encoding="utf-8"))
    assert report["chats_of_yours_alone"] == 1
    assert _prepare("--me", "Ada") == 0
    assert "only messages of yours" not in capsys.readouterr().out


def test_what_was_left_out_is_named_where_too_little_is_left(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", [("2009-01-01T10:00:00+00:00", "Bob", "old"), *_alternating(40)])
    (tmp_path / "mine.json").write_text('{"user_identifiers": ["Ada"], "since": "2010-01-01"}')
    assert main(["prepare", "--config", str(CONFIG), "--user-config", "mine.json"]) == 1
    assert "Left out by mine.json: 1 message (since, until)." in capsys.readouterr().err


def test_what_left_out_all_that_is_yours_is_named(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "club.csv", _alternating(40))
    write_csv(cleaned / "others.csv", [(NOON.isoformat(), "Bea", "hello")])
    (tmp_path / "mine.json").write_text('{"user_identifiers": ["Ada"], "exclude_conversations": ["club"]}')
    assert _prepare("--user-config", "mine.json") == 1
    said = capsys.readouterr().err
    assert "mine.json leaves out 20 messages of yours; in all 40 messages in 1 chat (exclude_conversations)" in said
    assert "your names" not in said


def test_chats_with_one_side_alone_are_refused_by_either_recipe(cleaned: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", [row for row in _alternating(400) if row[1] == "Ada"])
    for recipe in ("windows", "conversations"):
        assert _prepare("--me", "Ada", "--recipe", recipe) == 1
        assert "nothing to train on: 200 of 200 messages are yours" in capsys.readouterr().err


def test_conversations_without_a_reply_are_counted(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    alone = [row for row in _alternating(6, timedelta(days=1)) if row[1] == "Ada"]
    write_csv(cleaned / "chat.csv", [*_alternating(80), *alone, *_alternating(8, timedelta(days=2))])
    assert _prepare("--me", "Ada", "--recipe", "conversations") == 0
    told = capsys.readouterr().out
    assert "44 of your 47 turns answer another's" in told
    assert any(line.startswith("note: 1 line") and "no reply" in line for line in told.splitlines())
    report = json.loads((tmp_path / "data/processed/preparation_report.json").read_text(encoding="utf-8"))
    assert report["conversations"]["with_a_line_but_no_reply"] == 1


def test_bases_and_folders_that_cannot_be_meant_are_refused(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", _alternating(40))
    assert _prepare("--me", "Ada", "--base", str(tmp_path / "nothing")) == 1
    assert f"--base {tmp_path / 'nothing'}: not a folder, and not a Hub repo whose" in capsys.readouterr().err
    assert _prepare("--me", "Ada", "--base", str(tmp_path)) == 1
    assert f"--base {tmp_path}: no tokenizer.json in this folder" in capsys.readouterr().err
    assert _prepare("--me", "") == 1
    assert "name yourself as the chats spell it" in capsys.readouterr().err
    assert _prepare("--me", "Ada", "--out", str(cleaned / "sub")) == 2
    assert "which ghost extract replaces" in capsys.readouterr().err
    assert not (cleaned / "sub").exists()


def test_a_base_of_the_list_needs_no_tokenizer_yet(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", _alternating(40))
    assert _prepare("--me", "Ada", "--base", "qwen3-4b", "--force") == 0
    assert "hf download Qwen/Qwen3-4B-Base tokenizer.json" in capsys.readouterr().out.replace("\n", " ")


def test_a_config_that_is_named_must_be_there(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    """Else whom it leaves out would be learnt from."""
    write_csv(cleaned / "chat.csv", _alternating(40))
    for name in ("mine.json", "config/user_config.json"):
        assert _prepare("--me", "Ada", "--user-config", name) == 1
        assert f"{name}: no such file" in capsys.readouterr().err
    assert not (tmp_path / "data" / "processed").exists()


def test_what_was_left_out_is_always_said(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    def row(*flags: str) -> str:
        assert _prepare(*flags) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("left out  "))

    carl = [(time, {"Bea": "Carl"}.get(who, who), text) for time, who, text in _alternating(20, timedelta(days=1))]
    write_csv(cleaned / "chat.csv", _alternating(40) + carl)
    write_csv(cleaned / "old.csv", [("2009-01-01T10:00:00+00:00", "Bob", "old")])
    config = tmp_path / "config"
    config.mkdir()
    (config / "user_config.jsn").touch()
    assert row("--me", "Ada").endswith(
        "nobody: there is no config/user_config.json, but config/user_config.jsn. To "
        "use it: --user-config config/user_config.jsn"
    )
    (config / "user_config.json").write_text('{"user_identifiers": ["Ada"]}')
    assert row() == "left out        nobody"
    leaves_out = {"user_identifiers": ["Ada"], "exclude_people": ["Carl"], "exclude_conversations": ["old"]}
    (config / "user_config.json").write_text(json.dumps(leaves_out))
    assert (
        row() == "left out        10 messages by 1 person (exclude_people); 1 message in 1 chat (exclude_conversations)"
    )


@pytest.mark.parametrize("recipe", ["windows", "conversations"])
def test_who_was_left_out_makes_no_headline(cleaned: Path, tmp_path: Path, capsys: Capture, recipe: str) -> None:
    """What the person wrote to them is in no window, and counts as nothing that is learnt."""
    chats = {name: [(t, {"Bea": name}.get(who, who), x) for t, who, x in _alternating(40)] for name in ("Bea", "Carl")}
    for name, rows in chats.items():
        write_csv(cleaned / f"{name}.csv", rows)
    (tmp_path / "mine.json").write_text(json.dumps({"user_identifiers": ["Ada"], "exclude_people": ["Carl"]}))
    assert _prepare("--user-config", "mine.json", "--recipe", recipe, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    lines = [*_lines(tmp_path / "data/processed/train.jsonl"), *_lines(tmp_path / "data/processed/val.jsonl")]
    turns = {turn for line in lines for turn in parse_line(line, recipe=recipe)}  # type: ignore[arg-type]
    shown = report["in_examples"]
    if recipe == "windows":
        assert (shown["people"], shown["chats"]) == (2, 1)
        assert shown["messages"] == shown["turns"] == len(turns) <= 40
        assert shown["yours"] == sum(turn.label == "A:" for turn in turns) <= 20
    else:  # in which each of these is a conversation
        assert (shown["messages"], shown["yours"], shown["chats"]) == (60, 40, 2)
    facts = ghost_json.read(tmp_path / "data/processed").facts["data"]["counts"]
    assert {key: shown[key] for key in ("messages", "conversations", "turns")} == {
        key: facts[key] for key in ("messages", "conversations", "turns")
    }


def test_a_base_whose_library_is_missing_says_so(
    cleaned: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The core install has no tokenizers: lengths are then estimated, but not in the place of a base that is named."""
    write_csv(cleaned / "chat.csv", _alternating(40))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert _prepare("--me", "Ada") == 0
    assert "by estimate" in capsys.readouterr().out
    assert _prepare("--me", "Ada", "--base", str(tiny_base)) == 1
    said = capsys.readouterr().err
    assert "the library tokenizers" in said
    assert "type: pip install" in said


def test_a_name_of_the_config_that_sent_nothing_is_pointed_out(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    write_csv(cleaned / "chat.csv", _alternating(40))
    (tmp_path / "mine.json").write_text('{"user_identifiers": ["Ada", "Ada Lovelaec"]}')
    assert _prepare("--user-config", "mine.json") == 0
    assert "note: no message is from Ada Lovelaec: is that spelled" in capsys.readouterr().out
    assert _prepare("--me", "Ada") == 0
    assert "no message is from" not in capsys.readouterr().out


# val.about.jsonl: a line for each line of val.jsonl, true to the conversations, and without a name.


FRENCH = ("tu viens ce soir avec nous ?", "je ne sais pas encore, peut-être plus tard")
ENGLISH = ("are you coming with us tonight?", "I do not know yet, maybe a little later")


@pytest.fixture(params=["windows", "conversations"])
def processed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty conversations in two chats, the last four held out: two of each chat."""
    monkeypatch.chdir(tmp_path)
    for path, offset, words in (("whatsapp/Bea.csv", 0, FRENCH), ("telegram/Bea.csv", 12, ENGLISH)):
        rows = [
            (time, sender, words[number % 2])
            for day in range(20)
            for number, (time, sender, _) in enumerate(_alternating(8, timedelta(days=day, hours=offset)))
        ]
        write_csv(tmp_path / "data" / "cleaned" / path, rows)
    assert _prepare("--me", "Ada", "--recipe", request.param) == 0
    return tmp_path / "data" / "processed"


def test_each_held_out_line_is_told_where_it_is_from(processed: Path) -> None:
    told = [json.loads(line) for line in (processed / "val.about.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [json.loads(line)["text"] for line in (processed / "val.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(told) == len(texts) > 0
    assert [one["conversation"] for one in told] == sorted(one["conversation"] for one in told)
    assert {one["conversation"] for one in told} == {36, 37, 38, 39}
    for one, text in zip(told, texts, strict=True):
        assert len(text.split("\n")) == one["last"] - one["first"] + 1
        assert (one["platform"], one["language"]) == (("whatsapp", "fr") if "tu viens" in text else ("telegram", "en"))
    assert "Bea" not in json.dumps(told)
    report = json.loads((processed / "preparation_report.json").read_text(encoding="utf-8"))
    assert sum(report["held_out_lines"]["platform"].values()) == len(told)
    assert set(report["held_out_lines"]["language"]) == {"fr", "en"}
    assert "val.about.jsonl" in json.loads((processed / "ghost.json").read_text(encoding="utf-8"))["files"]


def _told(folder: Path, name: str, days: range, *, first: int = 0) -> None:
    """A chat with a conversation of 13 numbered messages each day, Ada's and Bea's in turn."""
    rows = []
    for day in days:
        for number in range(13):
            moment = NOON + timedelta(days=day, minutes=4 * number)
            rows.append((moment.isoformat(), ["Bea", "Ada"][number % 2], f"{name} day {day} {number + first}"))
    write_csv(folder / f"{name}.csv", rows)


def _adapter_of(data: Path, folder: Path) -> Path:
    """What `ghost train` leaves of it, as far as `ghost prepare --continue` looks."""
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    base = {"repo": "r", "revision": "local", "weights_sha256": "0"}
    artifact.write(folder, ghost_json.read(data).facts, base=base, training={"config": {}, "kept_step": 7})
    return folder


def _turns(folder: Path, half: str, recipe: str) -> set[str]:
    lines = _lines(folder / f"{half}.jsonl")
    return {turn.text for line in lines for turn in parse_line(line, recipe=recipe)}  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", ["windows", "conversations"])
def test_what_an_adapter_held_out_stays_held_out(cleaned: Path, tmp_path: Path, recipe: str) -> None:
    """Whatever is added: a chat from before, newer days and another chat of the same time, newer days again."""
    flags = ("--me", "Ada", "--recipe", recipe)
    _told(cleaned, "mirlo", range(20, 60))
    assert _prepare(*flags, "--out", "first") == 0
    train, val = (_turns(Path("first"), half, recipe) for half in ("train", "val"))
    assert val
    parent = _adapter_of(Path("first"), tmp_path / "adapter")
    for until, name, days in ((60, "older", range(20)), (90, "beside", range(50, 58)), (100, "older", range(20))):
        _told(cleaned, "mirlo", range(20, until))
        _told(cleaned, name, days)
        out = Path(f"until{until}")
        assert _prepare(*flags, "--out", out, "--continue", parent) == 0
        now_train, now_val = (_turns(out, half, recipe) for half in ("train", "val"))
        assert not now_train & val
        assert not now_val & train
        assert val <= now_val
        assert any(f"mirlo day {until - 1} " in turn for turn in now_val)
        assert any("older day 0 " in turn for turn in now_train)
        last = ghost_json.read(parent).block("data")
        continues = {key: last[key] for key in ("train_sha256", "val_sha256")}
        assert ghost_json.read(out).block("data")["continues"] == continues
        train, val = train | now_train, val | now_val
        parent = _adapter_of(out, tmp_path / f"adapter{until}")


def test_only_new_chats_hold_out_their_own_end(cleaned: Path, tmp_path: Path) -> None:
    _told(cleaned, "mirlo", range(30))
    assert _prepare("--me", "Ada", "--out", "first") == 0
    parent = _adapter_of(Path("first"), tmp_path / "adapter")
    shutil.rmtree(cleaned)
    _told(cleaned, "mirlo", range(30, 40))
    assert _prepare("--me", "Ada", "--out", "second", "--continue", parent) == 0
    assert {turn.split()[2] for turn in _turns(Path("second"), "val", "windows")} == {"39"}


def test_the_rest_of_a_conversation_that_was_cut_stays_held_out(cleaned: Path, tmp_path: Path) -> None:
    write_csv(cleaned / "one.csv", _alternating(60))
    assert _prepare("--me", "Ada", "--out", "first") == 0
    assert json.loads(Path("first/preparation_report.json").read_text())["held_out"] == "end_of_last_conversation"
    train, val = (_turns(Path("first"), half, "windows") for half in ("train", "val"))
    parent = _adapter_of(Path("first"), tmp_path / "adapter")
    write_csv(cleaned / "one.csv", [*_alternating(61), *_alternating(40, timedelta(days=1))])
    assert _prepare("--me", "Ada", "--out", "second", "--continue", parent) == 0
    now_train, now_val = (_turns(Path("second"), half, "windows") for half in ("train", "val"))
    assert not now_train & val
    assert not now_val & train
    assert now_train - train


def test_it_is_recorded_when_the_held_out_conversations_were(cleaned: Path, tmp_path: Path) -> None:
    """From their first message to their last, also after a conversation went on."""

    def check(folder: str) -> None:
        known = Known.of(ghost_json.read(Path(folder)))
        assert known
        for half in ("train", "val"):
            moments = [
                datetime.fromisoformat(turn.removeprefix("[at] ")) for turn in _turns(Path(folder), half, "windows")
            ]
            assert {any(span.holds(one) for span in known.held_out) for one in moments} == {half == "val"}

    write_csv(cleaned / "one.csv", _alternating(60))
    assert _prepare("--me", "Ada", "--out", "first") == 0
    check("first")
    write_csv(cleaned / "one.csv", [*_alternating(100), *_alternating(60, timedelta(days=1))])
    assert (
        _prepare("--me", "Ada", "--out", "second", "--continue", _adapter_of(Path("first"), tmp_path / "adapter")) == 0
    )
    check("second")


def test_what_cannot_be_continued_is_refused_by_what_it_is(cleaned: Path, tmp_path: Path, capsys: Capture) -> None:
    _told(cleaned, "mirlo", range(10))
    assert _prepare("--me", "Ada", "--out", "first") == 0
    parent = _adapter_of(Path("first"), tmp_path / "adapter")
    merged, unfinished, old = tmp_path / "merged", tmp_path / "half", tmp_path / "old"
    (tmp_path / "half.checkpoint").mkdir()
    merged.mkdir()
    artifact.write(merged, ghost_json.read(parent).facts, merge={"adapter_sha256": "0", "base_weights": "0"})
    shutil.copytree(parent, old)
    facts = json.loads((old / "ghost.json").read_text())
    del facts["data"]["known"]
    (old / "ghost.json").write_text(json.dumps(facts))
    capsys.readouterr()
    for folder, flags, complaint in (
        (tmp_path / "none", (), "--continue: {}: no such folder"),
        (Path(), (), "Name a folder that ghost train wrote"),
        (merged, (), "--continue {}: a merged model; name the adapter that it was merged from"),
        (Path("first"), (), "--continue {}: holds no adapter; name a folder that ghost train wrote"),
        (unfinished, (), "--continue {}: this training is not finished; finish it: ghost train --resume --out {}"),
        (tmp_path / "half.checkpoint", (), "this training is not finished; finish it: ghost train --resume --out "),
        (
            parent,
            ("--recipe", "conversations"),
            "--continue {}: trained with the recipe windows, and the data has conversations;",
        ),
        (old, (), "--continue {}: an earlier version of ghost prepared its data"),
    ):
        assert _prepare("--me", "Ada", "--out", "second", "--continue", folder, *flags) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint.format(folder, folder) in line
    assert not Path("second").exists()
    (parent / "adapter_model.safetensors").write_bytes(b"Weights")
    assert _prepare("--me", "Ada", "--out", "second", "--continue", parent) == 1
    assert "its SHA-256 is not the one in ghost.json" in capsys.readouterr().err
