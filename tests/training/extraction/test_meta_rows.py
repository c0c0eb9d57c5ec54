"""What Messenger and Instagram write into a chat by themselves, and what people write about it."""

from pathlib import Path
from typing import Any

import pytest

from tests.training.extraction.exports import records, save
from tests.training.extraction.platforms.test_messenger import row, thread
from training.extraction.platform import Kind


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
        ("Reacted 👍🏽 to your message ", Kind.SYSTEM),
        ("A réagi ❤ à votre message ", Kind.SYSTEM),
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
