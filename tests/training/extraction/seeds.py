"""The smallest file of every platform and form: what the fuzzers start from. Paths matter to some platforms."""

import json
from typing import Any

MS = 1_647_179_760_000  # 13 March 2022, 13:56 UTC
FRAMES = (
    {"version": "1", "backupTimeMs": str(MS)},
    {"recipient": {"id": "1", "self": {}}},
    {"recipient": {"id": "2", "contact": {"aci": "QQ==", "systemGivenName": "Ada"}}},
    {"chat": {"id": "10", "recipientId": "2"}},
    {"chatItem": {"chatId": "10", "authorId": "2", "dateSent": str(MS), "standardMessage": {"text": {"body": "hi"}}}},
    {"chatItem": {"chatId": "10", "authorId": "1", "dateSent": str(MS), "updateMessage": {"individualCall": {}}}},
)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1)


def _lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def _telegram(**fields: Any) -> dict[str, Any]:
    message = {"id": 1, "type": "message", "date": "2022-03-13T14:56:00", "from": "Bob", "from_id": "user1"}
    return message | {"text": "hi"} | fields


CHAT = {
    "name": "Bob",
    "type": "personal_chat",
    "id": 1,
    "messages": [
        _telegram(date_unixtime="1647179760", text=["a ", {"type": "bold", "text": "b"}], reactions=[{"emoji": "👍"}]),
        _telegram(id=2, photo="p.jpg", text="\ud83d\ude00"),
        _telegram(id=3, type="service", action="phone_call", actor="Bob", actor_id="user1"),
        _telegram(id=4, poll={"question": "?", "answers": []}, forwarded_from="Zoé"),
    ],
}
THREAD = {
    "participants": [{"name": "L\u00c3\u00a9a"}, {"name": "Bob"}],
    "messages": [
        {"sender_name": "L\u00c3\u00a9a", "timestamp_ms": MS, "content": "\u00c3\u00a9t\u00c3\u00a9"},
        {"sender_name": "Bob", "timestamp_ms": MS, "photos": [{"uri": "a.jpg"}], "is_unsent": False},
    ],
    "title": "Bob",
    "thread_path": "inbox/bob_1",
}
ENCRYPTED = {
    "participants": ["Bob", "Léa"],
    "threadName": "Bob_1",
    "messages": [
        {"senderName": "Bob", "text": "hi", "timestamp": MS, "type": "text", "isUnsent": False, "media": []},
        {"senderName": "Léa", "text": "", "timestamp": MS, "type": "media", "media": [{"uri": "./a.jpg"}]},
    ],
}
DISCORD = {
    "guild": {"id": "0", "name": "Direct Messages"},
    "channel": {"id": "1", "type": "DirectTextChat", "name": "bob"},
    "messages": [
        {
            "id": "5",
            "type": "Default",
            "timestamp": "2022-03-13T14:56:00.123+01:00",
            "timestampEdited": None,
            "content": "hi <@2>",
            "author": {"id": "2", "name": "bob", "nickname": "Bob"},
            "attachments": [],
            "mentions": [{"id": "2", "name": "bob", "nickname": "Bob"}],
        },
        {"id": "6", "type": "Call", "timestamp": "2022-03-13T14:56:00+00:00", "content": "", "author": {"id": "2"}},
    ],
    "messageCount": 2,
}
SIGTOP = [{"id": "a", "conversationId": "c", "sent_at": MS, "type": "incoming", "body": "hi", "source": "+1"}]
SLACK = [
    {"type": "message", "user": "U1", "text": "hi <@U1> &lt;b&gt; <https://a.b|c>", "ts": "1647179760.123459"},
    {"type": "message", "subtype": "channel_join", "user": "U1", "text": "joined", "ts": "1647179761.000100"},
    {"type": "message", "user": "U1", "text": "", "ts": "1647179762.1", "files": [{"id": "F1", "name": "a.pdf"}]},
]
CREATOR = {"name": "Kay", "email": "kay@example.com", "user_type": "Human"}
GOOGLE_CHAT = {
    "messages": [
        {
            "creator": CREATOR,
            "created_date": "Friday, May 29, 2026 at 3:00:29\u202fAM UTC",
            "text": "hi",
            "message_id": "t/m",
        },
        {
            "creator": CREATOR,
            "created_date": "2026年5月29日星期五 UTC 03:00:29",
            "attached_files": [{}],
            "message_id": "t/n",
        },
    ]
}
GOOGLE_VOICE = """<?xml version="1.0" ?>
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Kay</title></head><body><div class="hChatLog hfeed">
<div class="message"><abbr class="dt" title="2020-02-03T11:37:00.632-06:00">Feb 3</abbr>:
<cite class="sender vcard"><a class="tel" href="tel:+12025550136"><span class="fn">Kay</span></a></cite>:
<q>you&#39;re<br>here</q></div></div><div class="tags">Labels</div></body></html>
"""
SMS = """<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>
<smses count="3">
<sms address="+15551234" date="1600000000123" type="1" body="hi &#55357;&#56838;&#10;you" contact_name="Lea" />
<mms date="1600000000123" msg_box="2" address="+15551234"><parts><part seq="0" ct="text/plain" text="yo" /></parts>
<addrs><addr address="+15551234" type="151" charset="106" /></addrs></mms>
</smses>
"""
IMESSAGE = """May 07, 2022  5:29:42 PM (Read by you after 1 minute)
Me
hi
Tapbacks:
Loved by Lea

May 07, 2022  5:30:00 PM
Lea
yo
"""
LINE = """[LINE] Chat history with Bob
Saved on: 2024/01/03 09:00

2024.01.02 Tuesday
03:04\tAlice\t"first line
second line"
03:05pm\tBob\t[Photo]
03:06pm\t\tAlice joined the group
"""
KAKAOTALK = """Lea 님과 카카오톡 대화
저장한 날짜 : 2024. 2. 21. 오후 10:21

2024년 2월 6일 화요일
2024. 2. 6. 오전 12:05: Noa님이 Lea님을 초대했습니다.
2024. 2. 6. 오후 1:15, Lea : 사진
2024. 2. 6. 오후 1:16, Noa : one
two
"""
KAKAOTALK_WINDOWS = """Lea 님과 카카오톡 대화
저장한 날짜 : 2020-12-07 16:38:21

--------------- 2020년 12월 7일 월요일 ---------------
[Noa] [오후 4:31] hi
Lea님이 나갔습니다.
"""
SIGNAL_MARKDOWN = "[2019-12-24 12:23] Ada: hi  \n[2019-12-24 12:24] Me: yo\n(- Ada: 👍 -)  \n"

SNAPCHAT = {
    "lea.b": [
        {
            "From": "noa",
            "Media Type": "MEDIA",
            "Created": "2022-03-13 13:57:00 UTC",
            "Content": None,
            "Conversation Title": None,
            "IsSender": True,
            "Created(microseconds)": MS + 1000,
            "Media IDs": "b~x",
        },
        {
            "From": "lea.b",
            "Media Type": "TEXT",
            "Created": "2022-03-13 13:56:00 UTC",
            "Content": "hi",
            "IsSender": False,
        },
    ]
}
SNAPCHAT_OLD = {
    "Received Saved Chat History": [
        {"From": "lea.b", "Media Type": "TEXT", "Created": "2021-03-13 13:56:00 UTC", "Text": "it&#39;s"}
    ],
    "Sent Saved Chat History": [
        {"To": "lea.b", "Media Type": "TEXT", "Created": "2021-03-13 13:57:00 UTC", "Text": "yo"}
    ],
}
X_MESSAGES = [
    {"reactionCreate": {"senderId": "111", "createdAt": "2022-03-13T13:58:00.000Z", "reactionKey": "like"}},
    {
        "messageCreate": {
            "id": "9",
            "senderId": "222",
            "recipientId": "111",
            "createdAt": "2022-03-13T13:56:00.123Z",
            "text": "hi &amp; https://t.co/a",
            "urls": [{"url": "https://t.co/a", "expanded": "https://example.org"}],
            "mediaUrls": [],
        }
    },
]
SKYPE = {
    "userId": "8:live:noa",
    "conversations": [
        {
            "id": "8:live:lea",
            "displayName": "Lea",
            "threadProperties": None,
            "MessageList": [
                {
                    "id": "2",
                    "originalarrivaltime": "2022-03-13T13:57:00.5Z",
                    "messagetype": "RichText",
                    "from": "8:live:noa",
                    "content": '<quote messageid="1"><legacyquote>Lea: </legacyquote>a</quote>yo <ss type="s">:)</ss>',
                    "properties": {"emotions": [{"key": "like", "users": [{}]}]},
                },
                {
                    "id": "1",
                    "originalarrivaltime": "2022-03-13T13:56:00Z",
                    "messagetype": "RichText",
                    "from": "8:live:lea",
                    "content": "a &lt; b",
                },
            ],
        }
    ],
}
HANGOUTS_CONVERSATION = {
    "id": {"id": "C"},
    "type": "STICKY_ONE_TO_ONE",
    "participant_data": [{"id": {"gaia_id": "1"}, "fallback_name": "Lea"}, {"id": {"gaia_id": "2"}}],
}
HANGOUTS_EVENTS = [
    {
        "sender_id": {"gaia_id": "1"},
        "timestamp": f"{MS}000",
        "event_id": "E",
        "event_type": "REGULAR_CHAT_MESSAGE",
        "chat_message": {"message_content": {"segment": [{"type": "TEXT", "text": "hi"}, {"type": "LINE_BREAK"}]}},
    },
    {"sender_id": {"gaia_id": "2"}, "timestamp": f"{MS}001", "event_type": "HANGOUT_EVENT"},
]

SEEDS: dict[str, str | bytes] = {
    "WhatsApp Chat with Bob.txt": "13/03/2022, 14:56 - Lea: hi\n13/03/2022, 14:57 - Bob: <Media omitted>\nyo\n",
    "Trip/_chat.txt": "[3/13/22, 2:56:00\u202fPM] Lea: \u200eimage omitted\r\n[3/14/22, 9:05:00\u202fAM] Bob: a\nb\r\n",
    "arabic/_chat.txt": "[١٨\u200f/٣\u200f/٢٠٢٢، ٢:٥٦:٠٠ م] محمد: \u200fتم حذف هذه الرسالة.\n",
    "old/chat.txt": "17:03, 9 Sep 2014 - Lea: POLL:\nq\nOPTION: a (1 vote)\n9:41, 9 Mar - Lea left\n",
    "chat.txt": "13.03.22, 14:56 - Bob: x".encode("utf-16"),
    "telegram/result.json": _json(CHAT),
    "telegram_account/result.json": _json({"chats": {"list": [CHAT]}, "left_chats": {"list": [CHAT | {"id": 2}]}}),
    "telegram_broken/result.json": _json(CHAT).replace("a ", "a\\x0c").replace('"emoji"', '"document_id": 5\n,"emoji"'),
    "messages/inbox/bob_1/message_1.json": _json(THREAD),
    "messenger/Bob_1.json": _json(ENCRYPTED),
    "your_instagram_activity/messages/inbox/bob_1/message_1.json": _json(THREAD),
    "discord/bob.json": _json(DISCORD),
    "signal/main.jsonl": _lines(*FRAMES),
    "sigtop/Ada.json": _json(SIGTOP),
    "signal/Ada/chat.md": SIGNAL_MARKDOWN,
    "signal/old.txt": "[2019-12-24, 12:23] Ada: hi\n[2019-12-24, 12:24] Me: yo\n",
    "slack/general/2025-01-10.json": _json(SLACK),
    "line/[LINE] Bob.txt": LINE,
    "kakaotalk/Talk.txt": KAKAOTALK,
    "kakaotalk/KakaoTalk_20201207.txt": KAKAOTALK_WINDOWS,
    "kakaotalk/KakaoTalk_Chat_Lea.csv": 'Date,User,Message\n2020-12-07 16:38:21,"Noa","hi\nyou"\n',
    "imessage/Lea.txt": IMESSAGE,
    "sms/sms.xml": SMS,
    "Takeout/Google Chat/Groups/DM abc/messages.json": _json(GOOGLE_CHAT),
    "Takeout/Voice/Calls/Kay - Text - 2020-02-03T17_37_45Z.html": GOOGLE_VOICE,
    "snapchat/chat_history.json": _json(SNAPCHAT),
    "snapchat_old/chat_history.json": _json(SNAPCHAT_OLD),
    "twitter/data/direct-messages.js": "window.YTD.direct_messages.part0 = "
    + _json([{"dmConversation": {"conversationId": "111-222", "messages": X_MESSAGES}}]),
    "skype/messages.json": _json(SKYPE),
    "Takeout/Hangouts/Hangouts.json": _json(
        {"conversations": [{"conversation": {"conversation": HANGOUTS_CONVERSATION}, "events": HANGOUTS_EVENTS}]}
    ),
    "hangouts_old/Hangouts.json": _json(
        {
            "conversation_state": [
                {"conversation_state": {"conversation": HANGOUTS_CONVERSATION, "event": HANGOUTS_EVENTS}}
            ]
        }
    ),
    "table/chat.csv": 'timestamp,sender,message\n2022-03-13T14:56:00,Lea,"a, ""b""\nc"\n1647179760,Bob,yo\n',
    "table/chat.jsonl": _lines({"timestamp": "2022-03-13T14:56:00Z", "sender": "Lea", "message": "hi"}),
}

# What lies beside them: an index that platforms look names up in.
BESIDE: dict[str, str] = {
    "slack/users.json": _json([{"id": "U1", "name": "ada", "profile": {"display_name": "Ada"}}]),
    "slack/channels.json": _json([{"id": "C1", "name": "general", "members": ["U1"]}]),
    "twitter/data/account.js": 'window.YTD.account.part0 = [{"account": {"accountId": "111", "username": "noa_b"}}]',
    "Takeout/Google Chat/Groups/DM abc/group_info.json": _json({"members": [CREATOR]}),
}


def content(name: str) -> bytes:
    """The bytes of a seed, or of what lies beside one."""
    text = SEEDS[name] if name in SEEDS else BESIDE[name]
    return text if isinstance(text, bytes) else text.encode()
