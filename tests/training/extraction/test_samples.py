"""Real exports by others, read in place beside the checkout: upstream's own tests state what is in them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import save, whatsapp
from training.extraction.platform import Kind, Record
from training.extraction.platforms import recognise
from training.extraction.source import Source, discover

FORMATS = Path(__file__).parents[4] / "shared" / "formats"
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")

LANGUAGES = "whatsapp/starkdmi_whats_json/test/data/languages"
CHAT_MINER = "whatsapp/joweich_chat-miner"

# starkdmi/whats_json, test/languages_test.dart: 4 text, 2 location, 17 system or placeholder.
IOS = Counter({Kind.MESSAGE: 4, Kind.LOCATION: 2, "rest": 17})
# The same, Android: 15 text, 3 location, 2 contact files and 40 system or placeholder; media counts as rest here.
ANDROID = Counter({Kind.MESSAGE: 15, Kind.LOCATION: 3, "rest": 42})

EXPECTED = {
    **{f"{LANGUAGES}/{language}_ios.txt": IOS for language in (
        "arabic", "arabic2", "czech", "deutch", "english", "french", "indonesian", "italian", "portugal", "russian",
        "spanish", "thai",
    )},
    f"{LANGUAGES}/english_android.txt": ANDROID,
    f"{LANGUAGES}/russian_android.txt": ANDROID,
    # Upstream counts a captioned picture as a picture (15 text); its 8 captions are words that somebody wrote.
    f"{LANGUAGES}/english_android_media.txt": Counter({Kind.MESSAGE: 15 + 8, Kind.LOCATION: 3, "rest": 42 - 8}),
    f"{LANGUAGES}/english_ios_media.txt": Counter({Kind.MESSAGE: 4, Kind.LOCATION: 2, "rest": 19}),
    "whatsapp/starkdmi_whats_json/own_groups/ios_private_attached.redacted.txt": IOS,
    # chat-miner drops 2 system lines and one ":." line.
    **{f"{CHAT_MINER}/test/whatsapp/test_{name}.txt": Counter({Kind.MESSAGE: 6, "rest": 3}) for name in (
        "mmddyy_24hrs", "ddmmyy_24hrs", "mmddyyyy_12hrs", "yyyymmdd_24hrs", "[mmddyy]_24hrs",
    )},
    # 9 rows in its CSV, 3 of them system lines under the name "System"; the ":." line is dropped.
    f"{CHAT_MINER}/history/test_dateformat1.txt": Counter({Kind.MESSAGE: 6, "rest": 4}),
    **{f"{CHAT_MINER}/history/test_dateformat{number}.txt": Counter({Kind.MESSAGE: 4}) for number in (2, 3, 5, 6)},
    "whatsapp/ChatLab_ChatLab/_chat.txt": Counter({Kind.MESSAGE: 2, "rest": 1}),
    # Upstream counts 1 text and 2 images; no Android export says "image omitted" outside brackets, people do. The
    # notice without a time above them is counted too.
    "whatsapp/ChatLab_ChatLab/与Alice的 WhatsApp 聊天.txt": Counter({Kind.MESSAGE: 3, "rest": 1}),
    "whatsapp/_public_issues/ios_2024_group_events.txt": Counter({"rest": 5}),
    "telegram/joweich_chat-miner/test/telegram/test_single_export.json": Counter({Kind.MESSAGE: 2}),
    "telegram/joweich_chat-miner/test/telegram/test_batch_export.json": Counter({Kind.MESSAGE: 2}),
    "telegram/Mehrdad-esn_Telegram-Export-Parser/test_data.json": Counter({Kind.MESSAGE: 7}),
    "telegram/unknown-repo_id70577419218/full_account.json": Counter({Kind.MESSAGE: 1}),
    "telegram/_public_issues/x_escape_control_chars.json": Counter({Kind.MESSAGE: 1, "rest": 1}),  # an inline bot
    "telegram/_public_issues/custom_emoji_unquoted_document_id.json": Counter({Kind.MESSAGE: 1}),
    "messenger/kenn-io_msgvault/json_simple/your_activity_across_facebook/messages/inbox/alice_ABC123/message_1.json":
        Counter({Kind.MESSAGE: 3}),
    "messenger/kenn-io_msgvault/json_simple/your_activity_across_facebook/messages/archived_threads/zoe_ARCH/"
    "message_1.json": Counter({Kind.MESSAGE: 1}),
    "messenger/joweich_chat-miner/history/facebookMessenger_testlog.json": Counter({Kind.MESSAGE: 2}),
}  # fmt: skip

# Every date of these fits two orders (mixes two, in the last), so that they are answered with the question.
UNDECIDED = {
    f"{CHAT_MINER}/history/test_dateformat4.txt": 4,
    f"{CHAT_MINER}/history/test_unicode.txt": 3,
    "whatsapp/_public_issues/android_2024_community_events.txt": 0,
}


def read(name: str, date_order: str | None = None) -> list[Record]:
    source = Source(FORMATS / name)
    recognised = recognise(source)
    assert recognised is not None
    return list(recognised.platform.read(source, date_order).records)


@pytest.mark.parametrize("name", EXPECTED)
def test_upstreams_expectation(name: str) -> None:
    kinds = Counter[str](
        record.kind if record.kind in (Kind.MESSAGE, Kind.LOCATION) else "rest" for record in read(name)
    )
    assert kinds == EXPECTED[name]


@pytest.mark.parametrize("name", UNDECIDED)
def test_undecidable_dates_are_asked_about(name: str) -> None:
    with pytest.raises(ExportError, match="--date-order"):
        read(name)
    assert sum(record.kind is Kind.MESSAGE for record in read(name, "dmy")) == UNDECIDED[name]


def test_whole_folders_are_read_or_refused_in_one_line() -> None:
    """No traceback, no unreadable record, in any file of the three platforms."""
    found = list(discover([FORMATS / platform for platform in ("whatsapp", "telegram", "messenger")]))
    assert len(found) > 100
    messages = []
    for source in found:
        assert isinstance(source, Source)
        if source.is_attachment:
            continue
        try:
            recognised = recognise(source)
            if recognised is not None:
                kinds = Counter(record.kind for record in recognised.platform.read(source, None).records)
                assert kinds[Kind.UNREADABLE] == 0, source
        except ExportError as error:
            messages.append(str(error))
    assert not [message for message in messages if "\n" in message]


def lines() -> list[tuple[str, str | None]]:
    """Header lines of upstream tests and issue threads, each with its expected time where one is stated."""
    formats = json.loads((FORMATS / "whatsapp/Pustur_whatsapp-chat-parser/header_formats.json").read_text("utf-8"))
    issues = json.loads((FORMATS / "whatsapp/_public_issues/header_lines.json").read_text("utf-8"))
    return [(each["line"], each["expected_local"]) for each in formats] + [(each["line"], None) for each in issues]


def test_every_reported_header_line_is_one_record(tmp_path: Path) -> None:
    assert len(lines()) == 26
    for line, expected in lines():
        (record,) = whatsapp(save(tmp_path, line), "dmy")
        assert record.kind in (Kind.MESSAGE, Kind.MEDIA), line
        assert expected is None or record.timestamp == expected, line
