"""Every module in `platforms/` is a platform, found without a list."""

import zipfile
from pathlib import Path

import pytest

from ghost import cli
from ghost.errors import ExportError
from tests.training.extraction import seeds
from tests.training.extraction.exports import save
from training.extraction import platforms
from training.extraction.platform import Evidence, Platform
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


# Signal's desktop text looks like WhatsApp's on an iPhone, KakaoTalk's table like any: both are asked last.
LOOK_ALIKE = {"signal/Ada/chat.md": {"whatsapp"}, "signal/old.txt": {"whatsapp"}}
LOOK_ALIKE["kakaotalk/KakaoTalk_Chat_Lea.csv"] = {"table"}
OWNERS = {"Trip": "whatsapp", "arabic": "whatsapp", "old": "whatsapp", "messages": "messenger", "sigtop": "signal"}
OWNERS |= {"your_instagram_activity": "instagram", "twitter": "x"}
OWNERS |= {"Google Chat": "google_chat", "Voice": "google_voice", "Hangouts": "hangouts"}


def owner(seed: str) -> str:
    folder = seed.removeprefix("Takeout/").split("/")[0] if "/" in seed else "whatsapp"
    return OWNERS.get(folder, folder.removesuffix("_account").removesuffix("_broken").removesuffix("_old"))


def claims(platform: Platform, source: Source, evidence: Evidence) -> bool:
    """Whether a platform takes a file for its own, if only to refuse it."""
    try:
        return platform.recognise(source, evidence) is not None
    except ExportError:
        return True


def test_every_recogniser_claims_its_own_files_and_no_others(tmp_path: Path) -> None:
    for name in (*seeds.SEEDS, *seeds.BESIDE):
        save(tmp_path, seeds.content(name), name)
    matrix: dict[str, set[str]] = {}
    for name in seeds.SEEDS:
        source = Source(tmp_path / name)
        evidence = platforms.evidence_of(source.head())
        matrix[name] = {each.NAME for each in PLATFORMS.values() if claims(each, source, evidence)}
        found = recognise(source)
        assert found is not None
        assert owner(name) == found.platform.NAME, name
    assert matrix == {name: {owner(name)} | LOOK_ALIKE.get(name, set()) for name in seeds.SEEDS}
    assert {owner(name) for name in seeds.SEEDS} == set(PLATFORMS)


NO_CHATS = {
    "log": "2024-01-02 10:05:03 - INFO: started\n2024-01-02 10:05:04 - WARNING: slow\n",
    "log, level second": "2024-01-02 10:05:03 - app - INFO - up: 1\n2024-01-02 10:05:04 - app - ERROR - no: 2\n",
    "log in brackets": "[2024-01-02 10:05:03] local.ERROR: no\n[2024-01-02 10:05:04] local.INFO: yes\n",
    "system log": "[2024-01-02 10:05:03] sshd[812]: open\n[2024-01-02 10:05:04] sshd[813]: close\n",
    "messages of the system": "[2024-01-02 10:05:03] kernel: usb up\n[2024-01-02 10:05:04] root: session opened\n",
    "services": "2024-01-02 10:05:03 - systemd: started\n2024-01-02 10:05:04 - CRON: run\n",
    "server": "2024/01/02 10:05:03 server.go:12: up\n2024/01/02 10:05:04 server.go:40: down\n",
    "commits": "2024-01-02 10:05:03 +0100 Lea: fix\n2024-01-03 10:05:03 +0100 Noa: mend\n",
    "stamps": "2024-01-02 03:04:05 Lea\nhi\n\n2024-01-02 03:07:08 Noa\nsee: the map\n",
    "stamps with dots": "2.1.2024 03:04:05 Lea\nhi\n\n2.1.2024 03:07:08 Noa\nsee: the map\n",
    "stamps in brackets": "[02/01/2024, 03:04:05] hi\n[02/01/2024, 03:07:08] see the map\n",
    "stamps with a colon": "2024. 2. 6. 오전 10:25: hi\n2024. 2. 6. 오후 1:15: yo\n",
}


@pytest.mark.parametrize("kind", NO_CHATS)
def test_dates_and_times_without_names_are_no_whatsapp(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = save(tmp_path, NO_CHATS[kind], "in/bad.txt")
    evidence = platforms.evidence_of(bad.read_bytes())
    assert PLATFORMS["whatsapp"].recognise(Source(bad), evidence) is None
    save(tmp_path, "13/03/2022, 14:56 - Lea: hi\n13/03/2022, 14:57 - Bob: yo\n", "in/good.txt")
    assert cli.main(["extract", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    assert "bad.txt: " in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").rglob("*.csv")] == ["good.csv"]


def test_a_chat_of_nothing_but_whatsapps_own_words_is_one(tmp_path: Path) -> None:
    text = "13/03/2022, 14:56 - Messages and calls are end-to-end encrypted.\n13/03/2022, 14:57 - Lea joined\n"
    found = recognise(Source(save(tmp_path, text)))
    assert found is not None
    assert found.platform.NAME == "whatsapp"
