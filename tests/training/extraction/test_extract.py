"""The verb: files in, CSVs and an account out."""

import csv
import json
import os
import stat
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ghost.cli import main
from ghost.demo.exports import write_exports
from tests.light import one_line
from tests.training.extraction import seeds
from tests.training.extraction.exports import save
from training.extraction.date_order import ASK
from training.extraction.extract import gather
from training.preparation.dataset import read

CHAT = "13/03/2022, 14:56 - Lea: hi\n13/03/2022, 14:57 - Bob: <Media omitted>\n13/03/2022, 14:58 - Bob: yo\nthere\n"


def extract(folder: Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    out = folder / "cleaned"
    code = main(["extract", *map(str, arguments), "--out", str(out)])
    report = out / "extraction_report.json"
    return code, json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_a_chat_becomes_a_csv_and_an_account(tmp_path: Path) -> None:
    code, report = extract(tmp_path, save(tmp_path, CHAT, "in/WhatsApp Chat with Bob.txt"))
    assert code == 0
    assert rows(tmp_path / "cleaned/whatsapp/Bob.csv") == [
        ["timestamp", "sender", "message"],
        ["2022-03-13T14:56:00", "Lea", "hi"],
        ["2022-03-13T14:58:00", "Bob", "yo\nthere"],
    ]
    (file,) = report["files"]
    assert (file["records"], file["kinds"]["message"], file["kinds"]["media"]) == (3, 2, 1)
    assert "3 of 3 date headers fit only day/month" in file["evidence"]
    (conversation,) = report["conversations"]
    assert conversation["senders"] == {"Lea": 1, "Bob": 1}
    assert stat.S_IMODE((tmp_path / "cleaned/extraction_report.json").stat().st_mode) == 0o600


def test_no_message_text_reaches_the_report_or_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = extract(tmp_path, save(tmp_path, CHAT.replace("yo\n", "SECRET\n") + "32/03/2022, 1:00 - L: SECRET\n"))
    assert "SECRET" not in json.dumps(report) + "".join(capsys.readouterr())


def test_json_prints_the_report_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = extract(tmp_path, save(tmp_path, CHAT), "--json")
    assert json.loads(capsys.readouterr().out) == report


def test_what_is_not_understood_is_named_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, CHAT, "in/good.txt")
    save(tmp_path, "dear diary", "in/diary.txt")
    save(tmp_path, b"13/03/2022, 14:56 - L\xe9a: a", "in/latin.txt")
    save(tmp_path, "10/12/2024, 10:00 - Lea: a", "in/dates.txt")
    save(tmp_path, b"\xff\xd8", "in/photo.jpg")
    code, report = extract(tmp_path, tmp_path / "in")
    assert code == 1
    assert [Path(file["file"]).name for file in report["files"]] == ["good.txt"]
    assert report["attachments_passed_over"] == 1
    shown = capsys.readouterr().out
    for part in ("dates.txt: every date fits both", "diary.txt: not a known chat export", "latin.txt: not UTF-8"):
        assert sum(part in line for line in report["refused"]) == 1
        assert part in shown


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse a file name that is not UTF-8")
def test_a_file_name_that_is_not_utf8_is_shown_with_a_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in (("WhatsApp Chat with %slise.txt", CHAT), ("%s.txt", "dear diary"), ("%s.zip", "no zip")):
        save(folder, content, name % os.fsdecode(b"\xc9"))
    code, report = extract(tmp_path, folder)
    assert (code, [Path(file["file"]).name for file in report["files"]]) == (1, ["WhatsApp Chat with \ufffdlise.txt"])
    assert [line.removeprefix(f"{folder}/").split(":")[0] for line in report["refused"]] == [
        "\ufffd.zip",
        "\ufffd.txt",
    ]
    assert report["conversations"][0]["title"] == "\ufffdlise"
    assert "\ufffd.zip: not a readable zip" in capsys.readouterr().out


def test_an_unreadable_record_is_named_by_its_line_and_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = extract(tmp_path, save(tmp_path, CHAT + "32/03/2022, 14:59 - Lea: x\n"))
    assert code == 1
    assert report["files"][0]["unreadable"] == [5]
    assert "1 unreadable, at line 5" in capsys.readouterr().out


def test_date_order_and_platform_are_the_users_to_say(tmp_path: Path) -> None:
    path = save(tmp_path, "10/12/2024, 10:00 - Lea: a")
    assert extract(tmp_path, path, "--date-order", "mdy", "--platform", "whatsapp")[0] == 0
    assert rows(tmp_path / "cleaned/whatsapp/chat.csv")[1][0] == "2024-10-12T10:00:00"


@pytest.mark.parametrize("platform", ["telegram", "signal", "skype", "slack"])
def test_a_platform_that_a_file_is_not_of_is_contradicted(
    tmp_path: Path, platform: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, CHAT)
    assert main(["extract", str(path), "--platform", platform, "--out", str(tmp_path / "out")]) == 1
    told = one_line(capsys.readouterr().out)
    assert f"not of {platform} but of whatsapp" in told
    assert "leave out --platform, or type --platform whatsapp" in told


@pytest.mark.parametrize(("content", "told"), [(b"", "empty file"), (b"%PDF-1.4", "a PDF"), (b"\0\1" * 9, "not text")])
@pytest.mark.parametrize("platform", ["telegram", "whatsapp", "x"])
def test_what_is_no_text_is_told_whatever_platform_is_named(
    tmp_path: Path, platform: str, content: bytes, told: str
) -> None:
    (problem,) = gather([save(tmp_path, content)], platform, None, 1)[0].problems
    assert f"chat.txt: {told}" in problem


def test_many_files_ask_for_the_date_order_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.txt", "b.txt"):
        save(tmp_path, "10/12/2024, 10:00 - Lea: a", f"in/{name}")
    extract(tmp_path, save(tmp_path, CHAT), tmp_path / "in")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("in/")[-1] for line in shown if "every date fits both" in line] == [
        "a.txt: every date fits both day/month and month/day.",
        "b.txt: every date fits both day/month and month/day.",
    ]
    closing = f"2 files have ambiguous dates.{ASK}"
    assert [line for line in shown if "--date-order" in line] == [closing]


def test_where_both_orders_agree_neither_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, day in (("a.txt", "10/10/2024"), ("b.txt", "05/05/2024"), ("c.txt", "13/10/2024")):
        save(tmp_path, f"{day}, 10:00 - Lea: a", f"in/{name}")
    _, report = extract(tmp_path, tmp_path / "in")
    assert {file["file"].split("/")[-1]: file["date_order"] for file in report["files"]} == {
        "a.txt": "either",
        "b.txt": "either",
        "c.txt": "dmy",
    }
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("dates:")]
    assert told == "dates: 2 read as either (the same days), 1 read as day/month"


def test_a_pasted_line_is_unreadable_in_the_order_that_the_user_says(tmp_path: Path) -> None:
    days = "".join(f"1/{day}/2022, 10:00 - Lea: {day}\n" for day in range(5, 11))
    path = save(tmp_path, f"{days}13/1/2022, 10:00 - Zoe: pasted\n")
    code, report = extract(tmp_path, path, "--date-order", "mdy")
    assert (code, report["files"][0]["unreadable"]) == (1, [7])
    assert rows(tmp_path / "cleaned/whatsapp/chat.csv")[1][0] == "2022-01-05T10:00:00"


def test_min_chars_counts_short_messages_as_empty(tmp_path: Path) -> None:
    _, report = extract(tmp_path, save(tmp_path, CHAT), "--min-chars", "3")
    assert (report["totals"]["message"], report["totals"]["empty"]) == (1, 1)


@pytest.mark.parametrize("arguments", [("--min-chars", "0"), ("--platform", "icq"), ("--date-order", "ydm")])
def test_bad_usage_exits_with_2(tmp_path: Path, arguments: tuple[str, str]) -> None:
    path = str(save(tmp_path, CHAT))
    try:
        code = main(["extract", path, "--out", str(tmp_path / "cleaned"), *arguments])
    except SystemExit as exit:
        code = int(exit.code or 0)
    assert code == 2
    assert not (tmp_path / "cleaned").exists()


def test_overlapping_exports_are_one_conversation(tmp_path: Path) -> None:
    save(tmp_path, CHAT, "a/WhatsApp Chat with Bob.txt")
    save(tmp_path, CHAT + "14/03/2022, 9:00 - Lea: more\n", "b/WhatsApp Chat with Bob.txt")
    _, report = extract(tmp_path, tmp_path / "a", tmp_path / "b")
    assert [file["kinds"]["duplicate"] for file in report["files"]] == [0, 2]
    assert [row[2] for row in rows(tmp_path / "cleaned/whatsapp/Bob.csv")] == ["message", "hi", "yo\nthere", "more"]


def test_a_chat_exported_from_both_phones_is_one(tmp_path: Path) -> None:
    said = [(minute, 7 * minute % 60) for minute in range(20)]
    android = "".join(f"13/03/2022, 14:{minute:02} - Lea: ok\n" for minute, _ in said)
    ios = "".join(f"[13/03/2022, 14:{minute:02}:{second:02}] Lea: ok\r\n" for minute, second in said)
    save(tmp_path, android, "in/WhatsApp Chat with Bob.txt")
    save(tmp_path, ios, "in/WhatsApp Chat - Bob/_chat.txt")
    _, report = extract(tmp_path, tmp_path / "in")
    assert (report["totals"]["message"], report["totals"]["duplicate"]) == (20, 20)


def test_telegrams_ids_tell_what_was_exported_twice(tmp_path: Path) -> None:
    """At home, then abroad with the contact renamed, and once by an old version that has no UTC clock."""
    for who, hour, has_utc in (("Bob", 13, True), ("Bobby", 7, True), ("Bob", 13, False)):
        messages = [
            {"id": n, "type": "message", "date": f"2024-03-10T{hour:02}:{n:02}:00", "from": who, "text": "ok"}
            | ({"date_unixtime": str(1710072000 + 60 * n)} if has_utc else {})
            for n in range(10)
        ]
        chat = {"name": who, "type": "personal_chat", "id": 7, "messages": messages}
        save(tmp_path, chat, f"in/{who}-{has_utc}/result.json")
    _, report = extract(tmp_path, tmp_path / "in")
    assert (report["totals"]["message"], report["totals"]["duplicate"]) == (10, 20)


def test_the_clocks_second_pass_reaches_preparation_in_order(tmp_path: Path) -> None:
    clocks = ("1:59", "2:10", "2:50", "2:15", "2:40", "3:05")
    extract(tmp_path, save(tmp_path, "".join(f"30/10/2022, {clock} - Lea: {clock}\n" for clock in clocks)))
    prepared = read(tmp_path / "cleaned", ZoneInfo("Europe/Paris"))
    assert list(prepared.table["text"]) == list(clocks)
    passes = [instant.isoformat()[11:16] for instant in prepared.table["instant"]]
    assert passes == ["23:59", "00:10", "00:50", "01:15", "01:40", "02:05"]
    assert prepared.out_of_order == 0


@pytest.mark.parametrize(
    ("names", "says"),
    [((), "no file at all. Pass what"), (("a.pdf", "b.PNG"), "attachments only (2). Pass what")],
)
def test_a_folder_without_an_export_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], says: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in names:
        save(tmp_path, "%PDF", f"in/{name}")
    assert extract(tmp_path, tmp_path / "in") == (1, {})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ghost extract: no chat export in {tmp_path / 'in'}: {says}")


def test_messenger_files_are_merged_in_numeric_order(tmp_path: Path) -> None:
    """Equal times in three files: only the numbers tell that message_10 is the oldest."""
    for number in (1, 2, 10):
        row = {"sender_name": "Lea", "timestamp_ms": 1600000000000, "content": f"file {number}"}
        thread = {"participants": [{"name": "Lea"}], "messages": [row], "title": "Bob", "thread_path": "inbox/bob_1"}
        save(tmp_path, thread, f"in/messages/inbox/bob_1/message_{number}.json")
    extract(tmp_path, tmp_path / "in")
    read = rows(tmp_path / "cleaned/messenger/Bob.csv")
    assert [row[2] for row in read][1:] == ["file 10", "file 2", "file 1"]


def test_an_html_page_beside_its_json_is_passed_over(tmp_path: Path) -> None:
    row = {"sender_name": "Lea", "timestamp_ms": 1600000000000, "content": "hi"}
    save(tmp_path, {"participants": [{"name": "Lea"}], "messages": [row]}, "in/message_1.json")
    save(tmp_path, "<!DOCTYPE html><html>", "in/message_1.html")
    code, report = extract(tmp_path, tmp_path / "in")
    assert (code, report["html_beside_json_passed_over"]) == (0, 1)


def test_a_zip_with_a_chat_may_hold_other_text(tmp_path: Path) -> None:
    path = tmp_path / "WhatsApp Chat - Bob.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", CHAT)
        archive.writestr("00000046-Some file.txt", "dear diary")
        archive.writestr("00000035-PHOTO.jpg", b"\xff\xd8")
    code, report = extract(tmp_path, path)
    assert (code, report["attachments_passed_over"]) == (0, 2)
    assert (tmp_path / "cleaned/whatsapp/Bob.csv").exists()


def test_nothing_extracted_keeps_the_old_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract(tmp_path, save(tmp_path, CHAT))
    before = sorted(tmp_path.joinpath("cleaned").rglob("*"))
    code, _ = extract(tmp_path, save(tmp_path, "dear diary", "diary.txt"))
    assert code == 1
    assert "no message in" in capsys.readouterr().err
    assert sorted(tmp_path.joinpath("cleaned").rglob("*")) == before


def test_a_second_extraction_replaces_the_first_and_keeps_gitkeep(tmp_path: Path) -> None:
    save(tmp_path, "", "cleaned/.gitkeep")
    extract(tmp_path, save(tmp_path, CHAT, "first.txt"))
    extract(tmp_path, save(tmp_path, CHAT, "second.txt"))
    names = sorted(path.name for path in tmp_path.joinpath("cleaned").rglob("*") if path.is_file())
    assert names == [".gitkeep", "extraction_report.json", "languages.json", "rows.json", "second.csv"]


def test_a_folder_with_somebody_elses_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path, CHAT)
    extract(tmp_path, path)
    save(tmp_path, "mine", "cleaned/whatsapp/notes.txt")
    code, _ = extract(tmp_path, path)
    assert code == 2
    assert "whatsapp/notes.txt" in capsys.readouterr().err
    assert (tmp_path / "cleaned/whatsapp/notes.txt").read_text() == "mine"


def test_the_bundled_sample_comes_back_message_for_message(tmp_path: Path) -> None:
    """Its writer spells the three formats from the programs' own output and shares nothing with the parsers."""
    written = write_exports(tmp_path / "exports", seed=5, messages=800)
    code, report = extract(tmp_path, tmp_path / "exports")
    read = Counter[str]()
    for file in report["files"]:
        read[file["platform"]] += file["kinds"]["message"]
    assert (code, read) == (0, written.texts)


BODIES = st.one_of(
    st.sampled_from(["<Media omitted>", "null", "This message was deleted", "Missed voice call", "", ".", "ok"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)
LINES = st.lists(st.tuples(st.sampled_from(["Lea: ", "Bob:", ""]), st.integers(1, 40), BODIES), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_every_record_is_exactly_one_kind(tmp_path: Path, lines: list[tuple[str, int, str]]) -> None:
    text = "13/03/2022, 14:56 - Lea: a real one\n" + "".join(
        f"{day:02}/03/2022, 14:56 - {sender}{body}\n" for sender, day, body in lines
    )
    _, report = extract(tmp_path, save(tmp_path, text))
    (file,) = report["files"]
    assert file["records"] == sum(file["kinds"].values()) >= 1 + len(lines)
    assert len(file["unreadable"]) == file["kinds"]["unreadable"] >= sum(day > 31 for _, day, _ in lines)
    assert file["kinds"]["message"] == sum(each["messages"] for each in report["conversations"])


def report(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "cleaned" / "extraction_report.json").read_text("utf-8"))
    return written


def test_what_ghost_wrote_below_the_folder_is_not_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, CHAT, "raw/chat.txt")
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "cleaned")]) == 0
    first = report(tmp_path)["totals"]
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "cleaned")]) == 0
    assert report(tmp_path)["totals"] == first
    assert report(tmp_path)["own_folders_passed_over"] == [str(tmp_path / "cleaned")]
    assert "which ghost wrote" in capsys.readouterr().out


def test_a_message_that_names_nobody_is_in_a_csv_that_can_be_read_again(tmp_path: Path) -> None:
    people = [{"name": "Lea"}, {"name": "Noa"}]
    words = [{"sender_name": name, "timestamp_ms": 1714557600000, "content": "hi"} for name in ("Noa", None, " ")]
    thread = save(tmp_path, {"participants": people, "title": "Lea", "messages": words}, "message_1.json")
    assert extract(tmp_path, thread)[0] == 0
    (file,) = (tmp_path / "cleaned/messenger").iterdir()
    assert sorted(row[1] for row in rows(file)[1:]) == ["Noa", "Unknown", "Unknown"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (CHAT.encode("utf-16-le"), "not text in UTF-8"),
        (json.dumps({"messages": []}).encode("utf-16"), "not text in UTF-8"),
        (b"{\\rtf1 " + CHAT.encode(), "rich text; save it as plain text"),
        (b"PK\x03\x04" + bytes(99), "a zip or an Office document"),
        (b"%PDF-1.7", "a PDF"),
    ],
    ids=["utf-16 without its mark", "json in utf-16", "rich text", "zip", "pdf"],
)
def test_a_file_that_is_no_text_is_named(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(tmp_path, save(tmp_path, content, "chat.txt"))[0] == 1
    assert f"chat.txt: {says}" in capsys.readouterr().out


@pytest.mark.parametrize("head", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a", b"\x1f\x8b\x08", b"x" * 257 + b"ustar"])
def test_an_archive_that_is_not_read_is_to_be_unpacked(
    tmp_path: Path, head: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, head + bytes(99), "chats.bin")
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "cleaned")]) == 1
    assert "chats.bin: an archive, of which only zips are read; unpack it" in capsys.readouterr().out


def test_a_damaged_export_in_a_zip_with_a_chat_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("chat.txt", CHAT)
        archive.writestr("shopping.csv", "milk;bread")
        archive.writestr("message_2.json", '{"messages": [{"')
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "cleaned")]) == 1
    said = capsys.readouterr().out
    assert "message_2.json: not a known chat export" in said
    assert "shopping.csv" not in said


def test_two_chats_of_one_title_are_kept_apart_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = [f"13/03/2022, 14:{minute} - " for minute in range(10, 30)]
    for folder, words, start in (("here", "red", 0), ("there", "blue", 1)):
        lines = [f"{stamp}{('Marie', 'Lea')[number % 2]}: {words} {number}" for number, stamp in enumerate(stamps)]
        save(
            tmp_path, "\n".join([*lines[start::2], f"{stamps[3]}Lea: ok"]), f"in/{folder}/WhatsApp Chat with Marie.txt"
        )
    code, report = extract(tmp_path, tmp_path / "in")
    assert code == 0
    assert [(each["file"], each["messages"]) for each in report["conversations"]] == [
        ("whatsapp/Marie.csv", 11),
        ("whatsapp/Marie-2.csv", 11),
    ]
    assert "whatsapp/Marie.csv, whatsapp/Marie-2.csv" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["chat.csv", "chat.tsv", "chat.json", "chat.html", "chat"])
def test_the_name_of_a_file_does_not_hide_what_it_is(name: str, tmp_path: Path) -> None:
    account, (conversation,) = gather([save(tmp_path, CHAT, name)], None, None, 1)
    assert (len(conversation.messages), account.problems) == (2, [])


def test_companions_of_a_named_platform_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path, "[]", "users.json")
    row = {"type": "message", "user": "U1", "text": "hi", "ts": "1710237600.0001"}
    save(tmp_path, [row], "general/2024-03-12.json")
    account, (conversation,) = gather([tmp_path], "slack", None, 1)
    assert [record.text for record in conversation.messages] == ["hi"]
    assert (account.attachments, account.problems) == (1, [])


@pytest.mark.parametrize("name", [name for name in seeds.SEEDS if name.endswith(".json")])
def test_what_follows_the_end_of_a_json_export_is_said(name: str, tmp_path: Path) -> None:
    account, found = gather([save(tmp_path, seeds.content(name) * 2, name)], None, None, 1)
    assert found
    assert any("more after its end" in problem for problem in account.problems)
