import random
import zipfile
from pathlib import Path

import pytest

from ghost.errors import ExportError, UsageError
from tests.training.extraction.exports import save
from training.extraction.source import Source, discover, natural


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def found(*paths: Path) -> list[str]:
    return [str(each) for each in discover(paths)]


def test_numbers_sort_as_numbers() -> None:
    names = ["message_10", "message_2", "message_1"]
    assert sorted(names, key=natural) == ["message_1", "message_2", "message_10"]


def test_a_folder_is_walked_without_its_hidden_files(tmp_path: Path) -> None:
    for name in ("b/message_10.json", "b/message_2.json", "a.txt", ".git/x.txt", ".DS_Store"):
        save(tmp_path, "x", name)
    assert [Path(each).name for each in found(tmp_path)] == ["a.txt", "message_2.json", "message_10.json"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = save(tmp_path, "x")
    assert found(path, tmp_path, path) == [str(path)]


def test_a_missing_path_is_bad_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        found(tmp_path / "nowhere")


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    path = zipped(tmp_path / "Trip.zip", **{"_chat.txt": b"hello", "__MACOSX/._chat.txt": b"x"})
    (source,) = discover([path])
    assert isinstance(source, Source)
    assert (source.head(), source.parts[-2:]) == (b"hello", ("Trip", "_chat.txt"))
    assert [each.name for each in tmp_path.iterdir()] == ["Trip.zip"]


@pytest.mark.parametrize(
    ("member", "content", "says"),
    [
        ("../../etc/chat.txt", b"x", "leaves the zip"),
        ("/etc/chat.txt", b"x", "leaves the zip"),
        ("..\\chat.txt", b"x", "leaves the zip"),
        ("inner.zip", b"x", "a zip inside a zip"),
        ("bomb.txt", bytes(70_000_000), "zip bomb"),
    ],
)
def test_what_must_not_be_read_is_one_line_and_the_rest_goes_on(
    tmp_path: Path, member: str, content: bytes, says: str
) -> None:
    path = zipped(tmp_path / "x.zip", **{member: content, "zz.txt": b"fine"})
    refused, fine = discover([path])
    assert isinstance(refused, ExportError)
    assert says in str(refused)
    assert "\n" not in str(refused)
    assert isinstance(fine, Source)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", **{"_chat.txt": b"secret"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    (refused,) = found(path)
    assert "encrypted" in refused


@pytest.mark.parametrize("damage", [b"", b"no zip at all", b"PK\x03\x04 cut short"])
def test_a_damaged_zip_is_one_line(tmp_path: Path, damage: bytes) -> None:
    (refused,) = found(save(tmp_path, damage, "x.zip"))
    assert "not a readable zip" in refused


def test_a_damaged_member_is_an_export_error(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_chat.txt", b"hello world")
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    (source,) = discover([path])
    assert isinstance(source, Source)
    with pytest.raises(ExportError, match="damaged"):
        source.head()


def test_flipped_bytes_in_a_compressed_member_are_an_export_error(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    words = bytes(random.Random(5).choices(b"abcdefgh ", k=2000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", words)
    whole = path.read_bytes()
    for start in range(len("PK\x03\x04") + 26 + len("_chat.txt"), 400, 8):
        path.write_bytes(whole[:start] + bytes(byte ^ 0xFF for byte in whole[start : start + 8]) + whole[start + 8 :])
        (source,) = discover([path])
        assert isinstance(source, Source)
        with pytest.raises(ExportError, match=r"damaged|cannot be read") as caught:
            source.head()
        assert "\n" not in str(caught.value)
