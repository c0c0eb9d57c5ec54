import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind


def row(content: str | None = "hi", sender: str = "Lea", ms: int = 1600000000000, **fields: Any) -> dict[str, Any]:
    text = {} if content is None else {"content": content}
    return {"sender_name": sender, "timestamp_ms": ms, **text, **fields}


def thread(*rows: Any, **fields: Any) -> dict[str, Any]:
    people = [{"name": "Lea"}, {"name": "Bob"}]
    return {"participants": people, "messages": list(rows), "title": "Bob", "thread_path": "inbox/bob_1"} | fields


def broken(text: str) -> str:
    """As Facebook writes it: every UTF-8 byte as a character of its own."""
    return text.encode().decode("latin-1")


def test_newest_first_becomes_oldest_first(tmp_path: Path) -> None:
    read = records(save(tmp_path, thread(row("new", ms=1600000000001), row("old")), "message_1.json"))
    assert [(each.timestamp, each.text, each.position) for each in read] == [
        ("2020-09-13T12:26:40.000+00:00", "old", 2),
        ("2020-09-13T12:26:40.001+00:00", "new", 1),
    ]
    assert (read[0].chat.key, read[0].chat.title) == ("bob_1", "Bob")


def test_the_box_is_no_part_of_a_threads_identity(tmp_path: Path) -> None:
    keys = {records(save(tmp_path, thread(row(), thread_path=f"{box}/bob_1")))[0].chat.key for box in ("inbox", "e2ee")}
    assert len(keys) == 1


WORDS = ["café 😂", "j’ai l'été", "œuvre – ça", "plain"]


def test_mojibake_is_repaired_in_every_string(tmp_path: Path) -> None:
    rows = [row(broken(words), sender=broken("Zoë")) for words in WORDS]
    read = records(save(tmp_path, thread(*rows, title=broken("Équipe"))))
    assert [each.text for each in reversed(read)] == WORDS
    assert {(each.sender, each.chat.title) for each in read} == {("Zoë", "Équipe")}


@pytest.mark.parametrize("words", [["Ã©", "😂"], ["café", "été", "Ã©"]], ids=["above U+00FF", "outvoted"])
def test_clean_text_is_left_alone(tmp_path: Path, words: list[str]) -> None:
    """`Ã©` alone could be a damaged é; the other strings of the file show that nothing is damaged."""
    read = records(save(tmp_path, thread(*map(row, words))))
    assert [each.text for each in reversed(read)] == words


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (row(None, sticker={"uri": "x"}), Kind.MEDIA),
        (row(None, photos=[{"uri": "x"}]), Kind.MEDIA),
        (row("sunset", photos=[{"uri": "x"}]), Kind.MESSAGE),
        (row(None, share={"link": "https://x.org"}), Kind.MEDIA),
        (row("Lea called you.", call_duration=3), Kind.CALL),
        (row("Bob left", type="Unsubscribe"), Kind.SYSTEM),
        (row("Reacted 😆 to your message "), Kind.REACTION),
        (row("oops", is_unsent=True), Kind.DELETED),
        (row(None), Kind.EMPTY),
        (row("Zoë joined", users=[{"name": "Zoë"}]), Kind.SYSTEM),
        (row(ms="1600000000000"), Kind.MESSAGE),  # type: ignore[arg-type]
        (row(ms="soon"), Kind.UNREADABLE),  # type: ignore[arg-type]
        (row(ms=0), Kind.UNREADABLE),
        (row(ms=10**30), Kind.UNREADABLE),
        (row(ms=None), Kind.UNREADABLE),  # type: ignore[arg-type]
        (row(content=["hi"]), Kind.UNREADABLE),  # type: ignore[arg-type]
        ({"timestamp_ms": 1600000000000, "content": "hi"}, Kind.MESSAGE),
        (None, Kind.UNREADABLE),
        (7, Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, entry: Any, kind: Kind) -> None:
    assert records(save(tmp_path, thread(entry)))[0].kind is kind


def test_a_thread_without_participants_is_recognised_by_its_rows(tmp_path: Path) -> None:
    assert [each.text for each in records(save(tmp_path, {"messages": [row()]}))] == ["hi"]


def test_damaged_json_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not valid JSON") as caught:
        records(save(tmp_path, json.dumps(thread(row()))[:-5]))
    assert "\n" not in str(caught.value)


def encrypted(*rows: Any, people: tuple[str, ...] = ("Lea", "Bob"), name: str = "Bob_1") -> dict[str, Any]:
    return {"participants": list(people), "threadName": name, "messages": list(rows)}


def message(text: str = "hi", ms: Any = 1600000000000, sender: str = "Lea", **fields: Any) -> dict[str, Any]:
    row = {"isUnsent": False, "media": [], "reactions": [], "type": "text"}
    return {"senderName": sender, "text": text, "timestamp": ms} | row | fields


def test_an_encrypted_thread(tmp_path: Path) -> None:
    rows = [message("café 😂"), message("late", 1600000000001, "Bob")]
    read = records(save(tmp_path, encrypted(*rows), "Bob_1.json"))
    assert [(each.timestamp, each.sender, each.text) for each in read] == [
        ("2020-09-13T12:26:40.000+00:00", "Lea", "café 😂"),
        ("2020-09-13T12:26:40.001+00:00", "Bob", "late"),
    ]
    assert (read[0].chat.title, read[0].chat.is_id) == ("Bob", False)


def test_an_encrypted_thread_may_run_backwards(tmp_path: Path) -> None:
    rows = [message("2", 1600000000002), message("1b", 1600000000001), message("1a", 1600000000001)]
    assert [each.text for each in records(save(tmp_path, encrypted(*rows)))] == ["1a", "1b", "2"]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (message("", media=[{"uri": "./media/x.jpg"}], type="media"), Kind.MEDIA),
        (message("sunset", media=[{"uri": "./media/x.jpg"}], type="media"), Kind.MESSAGE),
        (message("https://x.org", type="link"), Kind.MESSAGE),
        (message("oops", isUnsent=True), Kind.DELETED),
        (message("Lea changed the group photo.", type="placeholder"), Kind.SYSTEM),
        (message("Lea changed the group photo."), Kind.SYSTEM),
        (message(""), Kind.EMPTY),
        (message(ms="soon"), Kind.UNREADABLE),
        ("hi", Kind.UNREADABLE),
    ],
)
def test_kinds_of_encrypted_rows(tmp_path: Path, entry: Any, kind: Kind) -> None:
    assert records(save(tmp_path, encrypted(entry)))[0].kind is kind


def test_damaged_text_of_an_encrypted_thread_is_repaired(tmp_path: Path) -> None:
    rows = [message(broken("café"), sender=broken("Zoë"))]
    (read,) = records(save(tmp_path, encrypted(*rows, people=(broken("Zoë"), "Bob"), name=broken("Zoë_3"))))
    assert (read.text, read.sender, read.chat.title) == ("café", "Zoë", "Zoë")


def test_both_halves_of_a_conversation_are_one_and_their_overlap_counts_once(tmp_path: Path) -> None:
    """The cutover's thread has what was said before encryption, the encrypted download may have it again."""
    old, both, new = 1600000000000, 1600000000001, 1600000000002
    classic = thread(row("both", "Bob", both), row("old", "Lea", old), thread_path="e2ee_cutover/bob_77")
    save(tmp_path, classic, "facebook/messages/e2ee_cutover/bob_77/message_1.json")
    later = encrypted(message("both", both, "Bob"), message("new", new), name="Bob_12")
    save(tmp_path, later, "messages/Bob_12.json")
    account, (conversation,) = gather([tmp_path], None, None, 1)
    assert [record.text for record in conversation.in_time_order()] == ["old", "both", "new"]
    kinds = sum((file.kinds for file in account.files), Counter[Kind]())
    assert (kinds[Kind.MESSAGE], kinds[Kind.DUPLICATE]) == (3, 1)


def test_groups_of_the_same_people_stay_apart(tmp_path: Path) -> None:
    people = ("Lea", "Bob", "Zoë")
    for number, name in enumerate(("Work", "Climbing"), start=1):
        save(tmp_path, encrypted(message(name), people=people, name=f"{name}_{number}"), f"{name}_{number}.json")
    _, conversations = gather([tmp_path], None, None, 1)
    assert sorted(each.chat.title for each in conversations) == ["Climbing", "Work"]


def test_deleted_accounts_share_a_name_and_no_conversation(tmp_path: Path) -> None:
    for number in (1, 2):
        people = ("Lea", "Utilisateur de Facebook")
        name = f"Utilisateur de Facebook_{number}"
        save(tmp_path, encrypted(message(f"{number}", sender=people[1]), people=people, name=name), f"{number}.json")
    _, conversations = gather([tmp_path], None, None, 1)
    assert len(conversations) == 2


def test_two_threads_without_a_path_in_one_folder_are_two(tmp_path: Path) -> None:
    for name in ("Lea", "Bob"):
        save(tmp_path, {"messages": [row(name, name)]}, f"{name}.json")
    _, conversations = gather([tmp_path], None, None, 1)
    assert len(conversations) == 2


@pytest.mark.parametrize("messages", [None, {}, "none", 3])
def test_no_list_of_messages_is_one_line(tmp_path: Path, messages: Any) -> None:
    with pytest.raises(ExportError, match=r"no list of messages.*Download it again") as caught:
        records(save(tmp_path, thread() | {"messages": messages}, "message_1.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("people", [[], None, ["x", 3, {}, {"name": None}]])
def test_participants_may_be_missing(tmp_path: Path, people: Any) -> None:
    assert [each.text for each in records(save(tmp_path, thread(row(), participants=people)))] == ["hi"]


def test_a_bom_and_half_a_surrogate_pair(tmp_path: Path) -> None:
    content = json.dumps(thread(row("cut off \ud83d"), title="Bob \udc00", thread_path="inbox/\ud83d_1"))
    (read,) = records(save(tmp_path, b"\xef\xbb\xbf" + content.encode()))
    for text in (read.text, read.chat.title, read.chat.key):
        text.encode()


def test_what_precedes_a_break_is_read_and_then_the_break_is_told(tmp_path: Path) -> None:
    whole = json.dumps(thread(*[row(f"{n}") for n in range(50)], thread_path="inbox/bob_1")).encode()
    path = save(tmp_path, whole[: whole.index(b'"content": "40"')], "bob_1/message_1.json")
    account, (conversation,) = gather([path], None, None, 1)
    assert [record.text for record in conversation.in_time_order()] == [f"{n}" for n in reversed(range(40))]
    assert conversation.chat.key == "bob_1"
    (problem,) = account.problems
    assert "not valid JSON after entry 40" in problem


def test_one_damaged_row_is_one_unreadable_record(tmp_path: Path) -> None:
    rows = ", ".join(json.dumps(row(f"{n}")) for n in range(3)).replace('"1"', '"\\x"')
    read = records(save(tmp_path, f'{{"participants": [{{"name": "Lea"}}], "messages": [{rows}]}}'))
    assert [(each.kind, each.text, each.position) for each in read] == [
        (Kind.MESSAGE, "2", 3),
        (Kind.UNREADABLE, "", 2),
        (Kind.MESSAGE, "0", 1),
    ]


FORMATS = Path(__file__).parents[5] / "shared" / "formats"
MSGVAULT = FORMATS / "messenger" / "kenn-io_msgvault"


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        # msgvault's tests: 3 without the one that was unsent, 2 of which one is a photo; then 3 and 1.
        ("e2ee_simple/your_activity_across_facebook/messages/alice_1.json", {Kind.MESSAGE: 3, Kind.DELETED: 1}),
        ("e2ee_simple/your_activity_across_facebook/messages/group_2.json", {Kind.MESSAGE: 1, Kind.MEDIA: 1}),
        ("json_simple/your_activity_across_facebook/messages/inbox/alice_ABC123/message_1.json", {Kind.MESSAGE: 3}),
        (
            "json_simple/your_activity_across_facebook/messages/archived_threads/zoe_ARCH/message_1.json",
            {Kind.MESSAGE: 1},
        ),
        ("json_group/your_activity_across_facebook/messages/inbox/crew_GRP123/message_1.json", {Kind.MESSAGE: 3}),
        (
            "json_nontext/your_activity_across_facebook/messages/inbox/sam_NONTXT/message_1.json",
            {Kind.MEDIA: 3, Kind.CALL: 2, Kind.SYSTEM: 1},
        ),
        ("json_with_media/your_activity_across_facebook/messages/inbox/bob_XYZ789/message_1.json", {Kind.MESSAGE: 1}),
        ("json_with_media_alt/your_facebook_activity/messages/inbox/carol_ALT456/message_1.json", {Kind.MESSAGE: 1}),
        ("mixed/your_activity_across_facebook/messages/inbox/eve_MIX/message_1.json", {Kind.MESSAGE: 2}),
        ("../joweich_chat-miner/history/facebookMessenger_testlog.json", {Kind.MESSAGE: 2}),
    ],
)
def test_samples(name: str, kinds: dict[Kind, int]) -> None:
    assert Counter(each.kind for each in records(MSGVAULT / name)) == kinds


def group(*rows: Any) -> dict[str, Any]:
    return thread(*rows, participants=[{"name": "Lea Roy"}, {"name": "Bob Ash"}], title="Crew")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("Lea Roy named the group Crew.", Kind.SYSTEM),
        ("Lea set the nickname for Bob Ash to Bobby.", Kind.SYSTEM),
        ("Lea Roy added Zoë Lee to the group.", Kind.SYSTEM),
        ("Lea set her own nickname to Queen. of hearts.", Kind.SYSTEM),
        ("Lea changed the chat theme to Love.", Kind.SYSTEM),
        ("Lea Roy left the group.", Kind.SYSTEM),
        ("Lea Roy a nommé le groupe L’équipe.", Kind.SYSTEM),
        ("Lea a défini l’emoji sur 👍.", Kind.SYSTEM),
        ("Lea a surnommé Bob Ash Bobby.", Kind.SYSTEM),
        ("Lea vous a ajouté(e) au groupe.", Kind.SYSTEM),
        ("Lea hat das Gruppenfoto geändert.", Kind.SYSTEM),
        ("You are now connected on Messenger", Kind.SYSTEM),
        ("Reacted 👍🏽 to your message ", Kind.REACTION),
        ("A réagi ❤ à votre message ", Kind.REACTION),
        ("Lea called you.", Kind.CALL),
        ("Lea started a video chat.", Kind.CALL),
        ("The video chat ended.", Kind.CALL),
        ("Lea vous a appelé(e).", Kind.CALL),
        ("L’appel est terminé.", Kind.CALL),
        ("Lea created a poll: lunch or dinner?", Kind.POLL),
        ("Lea Roy's poll has multiple updates.", Kind.POLL),
        ("Lea a voté pour « midi » dans le sondage : quand ?", Kind.POLL),
        ("Ce sondage n’est plus disponible.", Kind.POLL),
        ("Lea sent an attachment.", Kind.MEDIA),
        ("Lea a envoyé une pièce jointe.", Kind.MEDIA),
        ("Lea sent a location.", Kind.LOCATION),
        ("Lea unsent a message.", Kind.DELETED),
    ],
)
def test_the_apps_own_rows(tmp_path: Path, content: str, kind: Kind) -> None:
    """Without `type`, as in recent exports, and in a group, where the owner is not known."""
    (*_, read) = records(save(tmp_path, group(row(content, "Lea Roy"), row("hi", "Bob Ash"), row("ho", "Zoë Lee"))))
    assert (read.text, read.kind) == (content, kind)


@pytest.mark.parametrize(
    "content",
    [
        "I left my keys",
        "he left the group.",
        "Bob Ash left the group.",
        "Bob named the group Crew.",
        "Lea left the group because of you",
        "lea sent an attachment.",
        "sent an attachment.",
        "look: Lea sent an attachment.",
        "Lea sent an attachment. Did you see it?",
        "You called it.",
        "You called me",
        "You named the group wrong",
        "You removed it from the group.",
        "Vous avez raison.",
        "Reacted badly to your message",
        "I liked a message",
        "the video chat ended badly",
        "call ended",
        "The call ended",
        "You are now friends with my ex.",
        "This poll is no longer available to me.",
        "Bob missed your call.",
        "Lea\nleft the group.",
    ],
)
def test_what_people_write_about_such_things_is_theirs(tmp_path: Path, content: str) -> None:
    rows = [row(content, "Lea Roy"), row("hi", "Bob Ash"), row("ho", "Zoë Lee")]
    assert [each.kind for each in records(save(tmp_path, group(*rows)))] == [Kind.MESSAGE] * 3


def pair(*rows: Any) -> dict[str, Any]:
    return thread(*rows, participants=[{"name": "Bob Ash"}, {"name": "Lea Roy"}], title="Bob Ash")


def test_you_is_the_accounts_owner_alone(tmp_path: Path) -> None:
    """In a thread of two the title is the other one."""
    words = "You named the group Crew."
    read = records(save(tmp_path, pair(row(words, "Lea Roy"), row(words, "Bob Ash"))))
    assert {each.sender: each.kind for each in read} == {"Lea Roy": Kind.SYSTEM, "Bob Ash": Kind.MESSAGE}


@pytest.mark.parametrize(
    ("content", "sender"),
    [
        ("You called Bob.", "Lea Roy"),
        ("Bob missed your call.", "Lea Roy"),
        ("You missed a video call from Bob.", "Bob Ash"),
        ("Vous avez manqué un appel de Bob.", "Bob Ash"),
    ],
)
def test_calls_of_two_people(tmp_path: Path, content: str, sender: str) -> None:
    assert records(save(tmp_path, pair(row(content, sender))))[0].kind is Kind.CALL


def test_a_first_name_of_two_people_is_nobodys(tmp_path: Path) -> None:
    rows = [row("Rob left the group.", "Rob Ash"), row("hi", "Rob Lee"), row("ho", "Zoë")]
    assert {each.kind for each in records(save(tmp_path, group(*rows)))} == {Kind.MESSAGE}
