"""What lies in a folder or a zip may be damaged, huge or made to do harm: one line each, and the rest goes on."""

import json
import os
import socket
import struct
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from ghost.cli import main
from ghost.errors import ExportError, UsageError
from tests.training.extraction.exports import save
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import PIECE, Source, beside, discover

CHAT = "13/03/2022, 14:56 - Léa: hi\n13/03/2022, 14:57 - Bob: yo\n"


def split(*paths: Path) -> tuple[list[str], list[Source]]:
    """The lines, each checked to be one, and the sources."""
    found = list(discover(paths))
    lines = [str(each) for each in found if isinstance(each, ExportError)]
    assert not any("\n" in line or "\x1b" in line for line in lines)
    return lines, [each for each in found if isinstance(each, Source)]


@contextmanager
def one_line_at_most() -> Iterator[None]:
    try:
        yield
    except ExportError as error:
        line = str(error)
        assert "\n" not in line


def contents(sources: list[Source]) -> list[bytes]:
    def content(source: Source) -> bytes:
        with source.open() as stream:
            return stream.read()

    return list(map(content, sources))


def with_directory(path: Path, name: str, **claims: int) -> Path:
    """Falsify what the zip's directory claims of a member: its `file_size` or `compress_size`."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    entry = content.index(name.encode(), start) - 46  # the name follows a fixed part of 46 bytes
    for field, number in claims.items():
        struct.pack_into("<L", content, entry + {"compress_size": 20, "file_size": 24}[field], number)
    path.write_bytes(content)
    return path


def zipped(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_bomb_that_belittles_its_size_is_unpacked_no_further_than_it_claims(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"_chat.txt": bytes(60 * PIECE), "other.txt": CHAT})
    with_directory(path, "_chat.txt", file_size=1000)
    lines, (bomb, other) = split(path)
    assert lines == []
    tracemalloc.start()
    with pytest.raises(ExportError, match="damaged"), bomb.open() as stream:
        stream.read()
    assert tracemalloc.get_traced_memory()[1] < 8 * PIECE
    tracemalloc.stop()
    assert contents([other]) == [CHAT.encode()]


def test_a_bomb_that_exaggerates_its_packed_size_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"_chat.txt": bytes(100 * PIECE), "other.txt": CHAT})
    with_directory(path, "_chat.txt", compress_size=100 * PIECE)
    lines, sources = split(path)
    assert "refused as a zip bomb" in lines[0]
    assert contents(sources) == [CHAT.encode()]


def test_many_small_bombs_are_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {f"{number}.txt": bytes(12 * PIECE) for number in range(4)})
    lines, sources = split(path)
    assert ("refused as a zip bomb" in lines[0], len(lines), sources) == (True, 1, [])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_cannot_be_bounded_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bomb.txt", bytes(PIECE), method)
        archive.writestr("other.txt", CHAT)
    lines, sources = split(path)
    assert "unzip it and pass the folder" in lines[0]
    assert contents(sources) == [CHAT.encode()]


def test_a_zip_with_thousands_of_members(tmp_path: Path) -> None:
    """Its directory is read once: for each member anew it takes minutes."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5_000):
            archive.writestr(zipfile.ZipInfo(f"{number}.jpg"), b"")
        for number in range(100):
            archive.writestr(zipfile.ZipInfo(f"{number}.txt"), CHAT)
    lines, sources = split(path)
    chats = [source for source in sources if not source.is_attachment]
    assert (lines, len(sources), set(contents(chats))) == ([], 5_100, {CHAT.encode()})
    assert all(source.sibling("0.jpg") for source in chats)


def test_of_two_members_with_one_name_the_last_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", "first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("_chat.txt", "last")
    lines, sources = split(path)
    assert "another member of this name" in lines[0]
    assert contents(sources) == [b"last"]


@pytest.mark.parametrize(
    ("encoding", "form"),
    [
        ("utf-8", "NFC"),
        ("utf-8", "NFD"),
        ("utf-8 without its flag", "NFC"),
        ("utf-8 without its flag", "NFD"),
        ("cp437", "NFC"),
    ],
)
def test_a_name_with_accents_is_read_however_it_was_stored(
    tmp_path: Path, encoding: str, form: Literal["NFC", "NFD"]
) -> None:
    name = unicodedata.normalize(form, "Léa.txt")
    stored = name.encode(encoding.split()[0])
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("L" + "x" * (len(stored) - 5) + ".txt" if encoding != "utf-8" else name, CHAT)
    if encoding != "utf-8":
        path.write_bytes(path.read_bytes().replace(b"L" + b"x" * (len(stored) - 5) + b".txt", stored))
    (source,) = split(path)[1]
    assert source.name == "Léa.txt"
    assert contents([source]) == [CHAT.encode()]


def test_names_cannot_forge_a_line_or_move_the_cursor(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"../a\n0 messages lost\x1b[2J.txt": "x"})
    ((line,), _) = split(path)
    assert "\N{REPLACEMENT CHARACTER}" in line


def test_a_file_that_calls_itself_a_folder_above(tmp_path: Path) -> None:
    lines, sources = split(
        zipped(tmp_path / "x.zip", {"a/..\\..\\b.txt": "x", "..": "x", "a...txt": CHAT, "a/.b": "x"})
    )
    assert (len(lines), [source.member for source in sources]) == (2, ["a...txt"])


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"A": "x", ".": CHAT})
    path.write_bytes(path.read_bytes().replace(b"A", b"\0"))
    lines, sources = split(path)
    assert (len(lines), contents(sources)) == (1, [CHAT.encode()])
    assert "without a name" in lines[0]


def test_pipes_sockets_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path is at most 108 bytes long
        try:
            server.bind("socket.txt")
        finally:
            os.chdir(here)
        save(tmp_path, CHAT)
        lines, sources = split(tmp_path, Path("/dev/null"))
    assert [("pipe, socket or device" in line) for line in lines] == [True] * 3
    assert contents(sources) == [CHAT.encode()]


def test_links_that_lead_round_in_circles_or_nowhere(tmp_path: Path) -> None:
    save(tmp_path, CHAT, "a/chat.txt")
    save(tmp_path, CHAT, "a/b/other.txt")
    (tmp_path / "a/up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "a/nowhere").symlink_to("nothing")
    (tmp_path / "a/again").symlink_to(tmp_path / "a/b", target_is_directory=True)
    lines, sources = split(tmp_path / "a")
    assert len([line for line in lines if "cannot be read" in line]) == len(lines) == 2
    assert sorted(source.name for source in sources) == ["chat.txt", "other.txt"]


def test_links_out_of_a_folder_are_named_and_not_followed(tmp_path: Path) -> None:
    save(tmp_path, CHAT, "a/chat.txt")
    private = save(tmp_path, CHAT, "private/other.txt")
    links = {"a/file.txt": private, "a/folder": private.parent, "a/proc": Path("/proc/self")}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    lines, sources = split(tmp_path / "a")
    assert sorted(line.partition(":")[0] for line in lines) == sorted(str(tmp_path / name) for name in links)
    assert all("leads out of the folder" in line for line in lines)
    assert [source.name for source in sources] == ["chat.txt"]
    assert [source.name for source in split(tmp_path / "a/folder")[1]] == ["other.txt"]  # it was asked for by name
    assert [source.name for source in split(tmp_path / "a/file.txt")[1]] == ["file.txt"]


def test_a_companion_that_is_a_link_out_is_not_read(tmp_path: Path) -> None:
    save(tmp_path, "[]", "private/users.json")
    day = Source(save(tmp_path, "[]", "a/day/1.json"))
    (tmp_path / "a/users.json").symlink_to(tmp_path / "private/users.json")
    (tmp_path / "a/day/names").symlink_to(tmp_path / "private", target_is_directory=True)
    assert day.sibling("../users.json") is None
    assert beside(day, "names/*.json") == []
    (tmp_path / "a/day/own.json").symlink_to(tmp_path / "a/day/1.json")
    assert day.sibling("own.json") is not None


def test_what_may_not_be_opened_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, CHAT, "in/chat.txt")
    save(tmp_path, CHAT, "in/closed/chat.txt")
    closed, listdir = tmp_path / "in/closed", os.listdir

    def denied(path: Path) -> list[str]:  # a mode would not stop root
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", denied)
    lines, sources = split(tmp_path / "in")
    assert lines == [f"{closed}: cannot be read (Permission denied)"]
    assert contents(sources) == [CHAT.encode()]


def test_a_folder_may_be_called_a_zip_and_be_deep(tmp_path: Path) -> None:
    folder = tmp_path / "Trip.zip"
    save(folder, CHAT, "/".join("d" * 300) + "/chat.txt")
    assert contents(split(tmp_path)[1]) == [CHAT.encode()]


def test_text_in_the_place_of_a_path_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="no such file"):
        split(Path("hello " * 1000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"\xff\xfe\x00",
        b"\xff" * 100,
        b"\x1f\x8b\x08gzip",
        b"PK\x03\x04",
        b"\xef\xbb\xbf",
        b"{",
        b"[" * 99_999,
        b'{"a":' * 19_999,
        b'[{"ts": %s}]' % (b"1" * 9999),
        b'{"messages": [1e999999999999, -1e400, 1.%s]}' % (b"1" * 9999),
    ],
    ids=[
        "empty",
        "NULs",
        "half a UTF-16 unit",
        "no text",
        "gzip",
        "zip",
        "mark alone",
        "brace",
        "brackets",
        "braces",
        "long number",
        "huge number",
    ],
)
def test_no_chat_is_no_crash(tmp_path: Path, content: bytes) -> None:
    source = Source(save(tmp_path, content))
    with one_line_at_most():
        assert recognise(source) is None
    for platform in PLATFORMS.values():
        with one_line_at_most():
            list(platform.read(source, None).records)


def test_a_directory_that_contradicts_the_zip_is_one_line(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "x.zip", {"_chat.txt": CHAT * 50, "b/other.txt": CHAT}).read_bytes()
    for position in range(len(whole)):
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            (tmp_path / "x.zip").write_bytes(damaged)
            _, sources = split(tmp_path / "x.zip")
            for source in sources:
                with one_line_at_most():
                    contents([source])


def test_everything_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One folder, one run: a line for each thing that is wrong, a CSV for each chat, nothing unpacked."""
    folder = tmp_path / "in"
    save(folder, CHAT, "good.txt")
    save(folder, CHAT + "13/03/2022, 14:58 - Bob: " + "\0" * 99, "NUL.txt")
    save(folder, CHAT.encode("latin-1"), "latin.txt")
    save(folder, b"", "empty.txt")
    save(folder, b"no zip", "damaged.zip")
    save(folder, CHAT, "folder.zip/inside.txt")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    inner = zipped(tmp_path / "inner.zip", {"x.txt": CHAT}).read_bytes()
    members = {"zipped.txt": CHAT, "bomb.txt": bytes(70_000_000), "../out.txt": CHAT, "inner.zip": inner}
    zipped(folder / "many.zip", members)
    code = main(["extract", str(folder), "--out", str(tmp_path / "out"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 1
    wrong = ["damaged", "empty", "latin", "loop", "pipe", "NUL", "bomb", "out", "inner"]
    assert len(report["refused"]) == len(wrong)
    assert all("\n" not in line for line in report["refused"])
    assert all(any(name in line for line in report["refused"]) for name in wrong)
    csvs = sorted(path.name for path in (tmp_path / "out").rglob("*.csv"))
    assert csvs == ["good.csv", "inside.csv", "zipped.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "inner.zip", "out"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_files_of_proc_are_empty() -> None:
    """Their size is 0, whatever reading them gives: /proc/self/pagemap has half a terabyte."""
    assert Source(Path("/proc/self/pagemap")).head() == b""
    assert Source(Path("/proc/self/status")).head() == b""
