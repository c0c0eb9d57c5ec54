"""Pages are exports for people to look at: each is answered with how to export what can be read."""

from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather

META = '<!DOCTYPE html><html lang="en"><head><title>Bob</title></head><body><div class="_a6-g">hi</div>'


@pytest.mark.parametrize(
    ("page", "name", "answer"),
    [
        (
            '<!DOCTYPE html><html><body><div class="page_wrap"><div class="page_body"><div class="history">',
            "messages.html",
            "Telegram's HTML export.*Machine-readable JSON",
        ),
        (META, "messages/inbox/bob_1/message_1.html", "Messenger's HTML export.*Format: JSON"),
        (
            META.replace("_a6-g", "pam _3-95"),
            "your_activity_across_facebook/messages/inbox/bob_1/message_2.html",
            "Messenger's HTML export.*Format: JSON",
        ),
        ("<html><body>hi", "message_1.html", "Messenger's HTML export.*Format: JSON"),
        (
            META,
            "your_instagram_activity/messages/inbox/bob_1/message_1.html",
            "Instagram's HTML export.*Format: JSON",
        ),
        (
            '<!DOCTYPE html>\n<html lang="en"><head><style>.chatlog__message{}</style>',
            "Guild - general [1].html",
            "DiscordChatExporter.*Format: JSON",
        ),
        (
            "\ufeffAuthorID,Author,Date,Content,Attachments,Reactions\r\n",
            "Guild - general [1].csv",
            "DiscordChatExporter.*Format: JSON",
        ),
        (
            "=" * 62
            + "\r\nGuild: Guild\r\nChannel: Text / general\r\n"
            + "=" * 62
            + "\r\n\r\n[1/6/2023 2:26 PM] Lea\r\nhi",
            "Guild - general [1].txt",
            "DiscordChatExporter.*Format: JSON",
        ),
    ],
)
def test_one_line_says_what_to_type_next(tmp_path: Path, page: str, name: str, answer: str) -> None:
    with pytest.raises(ExportError, match=answer) as caught:
        records(save(tmp_path, page, name))
    assert "\n" not in str(caught.value)


def test_a_chat_about_pages_is_none(tmp_path: Path) -> None:
    chat = save(tmp_path, '01/02/2023, 10:00 - Lea: <html class="page_wrap"> or chatlog__ or _a6-g?\n')
    assert len(records(chat, "dmy")) == 1


def test_a_page_beside_its_json_is_passed_over(tmp_path: Path) -> None:
    rows = [{"sender_name": "Lea", "timestamp_ms": 1600000000000, "content": "hi"}]
    save(tmp_path, {"messages": rows, "thread_path": "inbox/bob_1"}, "bob_1/message_1.json")
    save(tmp_path, META, "bob_1/message_1.html")
    account, conversations = gather([tmp_path], None, None, 1)
    assert (len(conversations), account.problems, account.beside_json) == (1, [], 1)


def test_a_chat_beside_a_json_of_its_name_is_no_page(tmp_path: Path) -> None:
    save(tmp_path, "timestamp,sender,message\n2024-01-01T10:00:00,Lea,hi\n", "chat")
    save(tmp_path, {"messages": [], "participants": []}, "chat.json")
    account, conversations = gather([tmp_path], None, None, 1)
    assert (len(conversations), account.beside_json) == (1, 0)
