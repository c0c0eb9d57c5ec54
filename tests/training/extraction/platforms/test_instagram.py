from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind, Record
from training.extraction.platforms import recognise
from training.extraction.source import Source


def row(content: str | None = "hi", sender: str = "Lea", **fields: Any) -> dict[str, Any]:
    return {"sender_name": sender, "timestamp_ms": 1600000000000, "content": content} | fields


def thread(*rows: Any, **fields: Any) -> dict[str, Any]:
    people = [{"name": "Lea"}, {"name": "Bob"}]
    return {"participants": people, "messages": list(rows), "title": "Bob", "thread_path": "inbox/bob_1"} | fields


def platform(path: Path) -> str:
    recognised = recognise(Source(path))
    assert recognised is not None
    return recognised.platform.NAME


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("your_instagram_activity/messages/inbox/bob_1", "instagram"),
        ("instagram-lea-2024-03-10-x1/messages/inbox/bob_1", "instagram"),
        ("instagram/bob_1", "instagram"),
        ("instagram-lea-2024/your_instagram_activity/messages/inbox/facebook_1", "instagram"),
        ("instagram/your_facebook_activity/messages/inbox/bob_1", "messenger"),
        ("your_activity_across_facebook/messages/inbox/instagram_1", "messenger"),
        ("facebook-lea-2024/messages/inbox/bob_1", "messenger"),
        ("messages/inbox/bob_1", "messenger"),
    ],
)
def test_the_folder_nearest_to_the_thread_tells_the_app(tmp_path: Path, folder: str, name: str) -> None:
    assert platform(save(tmp_path, thread(row()), f"{folder}/message_1.json")) == name


@pytest.mark.parametrize(
    "entry",
    [
        row(None, photos=[{"uri": "your_instagram_activity/messages/inbox/bob_1/photos/1.jpg"}]),
        row(None, share={"link": "https://www.instagram.com/p/x", "original_content_owner": "zoe"}),
        row("Liked a message"),
        row("Liked a message "),
    ],
)
def test_what_only_instagram_writes_tells_it_too(tmp_path: Path, entry: Any) -> None:
    assert platform(save(tmp_path, thread(entry))) == "instagram"


def test_so_does_the_link_to_a_group(tmp_path: Path) -> None:
    mode = {"mode": 2, "link": "https://ig.me/j/x"}
    assert platform(save(tmp_path, thread(row(), joinable_mode=mode))) == "instagram"


@pytest.mark.parametrize(
    "words",
    ["see https://ig.me/j/x on your_instagram_activity/", "he Liked a message", '"original_content_owner": "me"'],
)
def test_words_about_instagram_are_no_sign_of_it(tmp_path: Path, words: str) -> None:
    assert platform(save(tmp_path, thread(row(words)))) == "messenger"


def test_what_facebook_writes_outweighs_what_somebody_can_have_typed(tmp_path: Path) -> None:
    photo = row(None, photos=[{"uri": "your_facebook_activity/messages/inbox/bob_1/photos/1.jpg"}])
    assert platform(save(tmp_path, thread(row("Liked a message"), photo))) == "messenger"


def test_the_files_of_a_thread_do_not_part_when_one_has_a_sign(tmp_path: Path) -> None:
    first = save(tmp_path, thread(row("Liked a message")), "message_1.json")
    assert platform(first) == "instagram"
    second = save(tmp_path, thread(row()), "message_2.json")
    assert (platform(first), platform(second)) == ("messenger", "messenger")


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (row("Liked a message"), Kind.REACTION),
        (row("Reacted 😂 to your message "), Kind.REACTION),
        (row("Missed a video call"), Kind.CALL),
        (row("Video chat ended"), Kind.CALL),
        (row("Lea started an audio call"), Kind.CALL),
        (row("Lea's poll has multiple updates."), Kind.POLL),
        (row("Lea sent an attachment.", share={"link": "https://www.instagram.com/p/x"}), Kind.MEDIA),
        (row("Bob sent an attachment.", share={"link": "https://www.instagram.com/p/x"}), Kind.MEDIA),
        (row("my boss sent an attachment.", share={"link": "https://x.org"}), Kind.MESSAGE),
        (row("look at this", share={"link": "https://x.org"}), Kind.MESSAGE),
        (row(None, share={"link": "https://x.org", "share_text": "somebody's words"}), Kind.MEDIA),
        (row(None), Kind.EMPTY),
        (row("this is a reply to your message"), Kind.MESSAGE),
        (row(timestamp_ms="soon"), Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, entry: Any, kind: Kind) -> None:
    path = save(tmp_path, thread(entry), "your_instagram_activity/messages/inbox/bob_1/message_1.json")
    assert records(path)[0].kind is kind


def of(read: list[Record], kind: Kind) -> list[str]:
    return [record.text for record in read if record.kind is kind]


def said(*rows: tuple[str, int, str]) -> dict[str, Any]:
    """Rows of sender, seconds and words, written newest first."""
    return thread(*(row(words, who, timestamp_ms=1600000000000 + 1000 * at) for who, at, words in reversed(rows)))


def test_an_edited_message_is_its_last_version_without_the_mark(tmp_path: Path) -> None:
    rows = [
        ("Lea", 0, "since march"),
        ("Bob", 1, "since march, you?"),
        ("Lea", 2, "since april (edited)"),
        ("Lea", 9, "since April 🛶 (edited)"),
        ("Bob", 20, "it is green (bearbeitet)"),
        ("Bob", 30, "my photo (edited) haha"),
        ("Bob", 40, "(edited)"),
    ]
    read = records(save(tmp_path, said(*rows), "instagram/bob_1/message_1.json"))
    assert of(read, Kind.MESSAGE) == [
        "since march, you?",
        "since April 🛶",
        "it is green",
        "my photo (edited) haha",
        "(edited)",
    ]
    assert of(read, Kind.SUPERSEDED) == ["since march", "since april"]


def test_an_earlier_message_that_is_no_version_of_an_edited_one_stays(tmp_path: Path) -> None:
    rows = [
        ("Lea", 0, "shall we row tomorrow?"),
        ("Lea", 1000, "yes"),
        ("Lea", 1010, "shall we row tomorrow? (edited)"),
    ]
    read = records(save(tmp_path, said(*rows), "instagram/bob_1/message_1.json"))
    assert [record.kind for record in read] == [Kind.MESSAGE] * 3


PAGE = (
    '<html><head><title>Bob</title></head><body><div class="pam _3-95 _2ph- _a6-g uiBoxWhite noborder">'
    '<div class="_3-95 _a6-p">hi</div><div class="_3-94 _a6-o">{}</div></div></body></html>'
)


@pytest.mark.parametrize(
    ("time", "app"), [("Nov 25, 2021 8:01 pm", "Instagram"), ("Nov 25, 2021 8:01:05 pm", "Messenger")]
)
def test_a_page_is_told_by_its_times(tmp_path: Path, time: str, app: str) -> None:
    with pytest.raises(ExportError, match=f"{app}'s HTML export"):
        recognise(Source(save(tmp_path, PAGE.format(time), "message_1.html")))


FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "instagram"


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("joweich_chat-miner/test/instagram/test_export.json", {Kind.MESSAGE: 2}),
        # chatmem's test: 1 message, 2 rows of reactions and 1 of a call, which it drops.
        ("unknown-repo_id59865392808/message_1.json", {Kind.MESSAGE: 1, Kind.REACTION: 2, Kind.CALL: 1}),
        (
            "joweich_chat-miner/history/testlog.json",
            {Kind.MESSAGE: 5, Kind.MEDIA: 4, Kind.POLL: 2, Kind.SYSTEM: 1, Kind.EMPTY: 1},
        ),
    ],
)
def test_samples(name: str, kinds: dict[Kind, int]) -> None:
    assert platform(FORMATS / name) == "instagram"
    assert Counter(each.kind for each in records(FORMATS / name)) == kinds
