"""Every module in `platforms/` is a platform, found without a list."""

import zipfile
from pathlib import Path

import pytest

from ghost import cli
from ghost.errors import ExportError
from tests.training.extraction.exports import save
from training.extraction import platforms
from training.extraction.platform import Platform
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source


def test_every_module_of_platforms_is_one() -> None:
    assert platforms.__file__ is not None
    files = {path.stem for path in Path(platforms.__file__).parent.glob("*.py")} - {"__init__"}
    assert len(PLATFORMS) == len(files)
    for platform in PLATFORMS.values():
        assert isinstance(platform, Platform), platform


def test_two_claims_are_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("telegram", "messenger"):
        monkeypatch.setattr(PLATFORMS[name], "recognise", lambda source, evidence: "it looks like one")
    with pytest.raises(ExportError, match=r"--platform messenger .* or --platform telegram"):
        recognise(Source(save(tmp_path, "x")))


def test_a_sibling_is_found_beside_and_above_in_folders_and_zips(tmp_path: Path) -> None:
    save(tmp_path, "x", "users.json")
    source = Source(save(tmp_path, "x", "general/2025-01-10.json"))
    assert str(source.sibling("../users.json")).endswith("users.json")
    assert source.sibling("nobody.json") is None
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("users.json", "x")
        archive.writestr("general/2025-01-10.json", "x")
    member = Source(tmp_path / "export.zip", "general/2025-01-10.json")
    assert member.sibling("../users.json") == Source(tmp_path / "export.zip", "users.json")
    assert member.sibling("../../users.json") is None


UNREAD = {
    "QQ": [
        "消息记录（此消息记录为文本格式，不支持重新导入）\n\n消息分组:我的好友\n",
        "2021-03-04 9:05:06 Noa(1234567)\nhi\n\n2021-03-04 9:05:09 Lea<lea@example.org>\nyo\n",
    ],
    "WeChat": ["localId,TalkerId,Type,SubType,IsSender,CreateTime,Status,StrContent,StrTime\n1,2,1,0,1,1,0,hi,x\n"],
    "VK": [
        '<html><head><title>VK</title></head><body><div class="message__header">Lea, 4 Mar 2021</div></body></html>'
    ],
    "TikTok": ['{"Direct Messages": {"Chat History": {"ChatHistory": {"Chat History with lea:": []}}}}'],
    "Matrix (Element)": [
        '{"room_name": "Trip", "room_creator": "@lea:example.org", "exported_by": "@noa:example.org"}'
    ],
    "Zulip": ['{"zerver_message": [{"content": "hi"}]}'],
}


@pytest.mark.parametrize(("app", "text"), [(app, text) for app, texts in UNREAD.items() for text in texts])
def test_apps_that_are_not_read_are_named(tmp_path: Path, app: str, text: str) -> None:
    with pytest.raises(ExportError) as refused:
        recognise(Source(save(tmp_path, text)))
    assert f"an export of {app}, which is not read" in str(refused.value)
    assert "timestamp,sender,message" in str(refused.value)


def test_a_bad_file_beside_a_good_one_is_named_and_the_good_one_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, UNREAD["QQ"][1], "in/qq.txt")
    save(tmp_path, "13/03/2022, 14:56 - Lea: hi\n13/03/2022, 14:57 - Bob: yo\n", "in/good.txt")
    assert cli.main(["extract", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    assert "an export of QQ" in capsys.readouterr().out + capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*.csv")] == ["good.csv"]
