"""Telegram's Bot API on the loopback, as far as the bot uses it, over real HTTP, with faults on request.

It does what core.telegram.org/bots/api says: updates are kept until a later offset confirms them, a second poller
throws the first one out with 409, floods are 429 with `retry_after`, an edit that changes nothing is 400, a button is
answered once, and business messages go out only through a connection that exists.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.loopback_server import LoopbackServer, QuietHandler, due

TOKEN = "7000000001:AAfakefakefakefakefakefakefakefake"
BOT = {"id": 7000000001, "is_bot": True, "first_name": "Ghost", "username": "ghost_bot"}
SECONDS = 30  # no test waits longer for anything


@dataclass
class Fault:
    """`what`: a status, "cut" (hung up before anything happened), "lost" (it happened, and the answer was not told), or
    JSON that comes from somebody else, with status 200."""

    where: str  # a regular expression over the method's name
    what: int | str
    times: int = 1
    skip: int = 0
    retry_after: int | None = None


@dataclass
class Sent:
    """A message that somebody can read now."""

    chat: int
    id: int
    text: str
    entities: list[dict[str, Any]] = field(default_factory=list)
    buttons: list[dict[str, str]] = field(default_factory=list)
    connection: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0


class FakeBotAPI(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.changed = threading.Condition()
        self.updates: list[dict[str, Any]] = []
        self.confirmed = 0
        self.next_update = 1000
        self.next_message = 1
        self.poller = 0  # the number of the poll that counts
        self.sent: list[Sent] = []
        self.calls: list[str] = []
        self.answered: dict[str, str] = {}
        self.open_queries: set[str] = set()
        self.connections: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.quiet: set[int] = set()  # chats in which the other side has written nothing for 24 hours
        self.typing: list[int] = []  # chats that were shown that somebody types
        self.typing_goes_on = threading.Event()  # while it is clear, no such sign is answered
        self.typing_goes_on.set()
        self.names: dict[int, str] = {}
        self.start()

    # What people do

    def user(self, id: int) -> dict[str, Any]:
        return {"id": id, "is_bot": False, "first_name": self.names.get(id, f"P{id}")}

    def chat(self, id: int) -> dict[str, Any]:
        if id < 0:
            return {"id": id, "type": "supergroup", "title": "friends"}
        return {"id": id, "type": "private", "first_name": self.names.get(id, f"P{id}")}

    def push(self, **update: Any) -> int:
        with self.changed:
            number = self.next_update
            self.next_update += 1
            self.updates.append({"update_id": number} | update)
            self.changed.notify_all()
            return number

    def message(self, writer: int, text: str | None, chat: int | None = None, **more: Any) -> dict[str, Any]:
        with self.changed:
            number = self.next_message
            self.next_message += 1
        said = {"text": text} if text is not None else {}
        where = self.chat(writer if chat is None else chat)
        return {"message_id": number, "date": int(time.time()), "chat": where, "from": self.user(writer)} | said | more

    def say(self, writer: int, text: str | None, chat: int | None = None, **more: Any) -> int:
        """Somebody writes; the id of their message."""
        if text and (found := re.search(r"@ghost_bot", text)):
            entity = {"type": "mention", "offset": len(text[: found.start()].encode("utf-16-le")) // 2, "length": 10}
            more.setdefault("entities", [entity])
        message = self.message(writer, text, chat, **more)
        self.push(message=message)
        return int(message["message_id"])

    def say_in_business(self, connection: str, writer: int, peer: int, text: str, **more: Any) -> int:
        message = self.message(writer, text, peer, business_connection_id=connection, **more)
        self.push(business_message=message)
        return int(message["message_id"])

    def connect(self, id: str, owner: int, can_reply: bool = True) -> None:
        rights = {"can_reply": can_reply}
        connection = {"id": id, "user": self.user(owner), "user_chat_id": owner, "date": 0, "is_enabled": True}
        self.connections[id] = connection | {"rights": rights}
        self.push(business_connection=self.connections[id])

    def press(self, presser: int, message: Sent, label: str) -> str:
        """A tap on a button; the id of the query that it makes."""
        data = next(button["callback_data"] for button in message.buttons if button["text"] == label)
        number = f"q{self.next_update}"
        self.open_queries.add(number)
        query = {"id": number, "from": self.user(presser), "chat_instance": "1", "data": data}
        self.push(callback_query=query | {"message": self.shown(message)})
        return number

    def shown(self, sent: Sent) -> dict[str, Any]:
        return {
            "message_id": sent.id,
            "date": int(time.time()),
            "chat": self.chat(sent.chat),
            "from": BOT,
            "text": sent.text,
        }

    # What can be seen

    def texts(self, chat: int) -> list[str]:
        return [message.text for message in self.sent if message.chat == chat]

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Wait until something holds. Raises TimeoutError saying what was sent instead."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come; sent: {[(sent.chat, sent.text) for sent in self.sent]}")
            time.sleep(0.005)
        return found

    def fault(self, method: str) -> Fault | None:
        return due(self.faults, method, re.fullmatch)


class Handler(QuietHandler):
    server: FakeBotAPI

    def do_POST(self) -> None:
        api = self.server
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.fields = {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}
        _, bot, method = urlsplit(self.path).path.split("/", 2)
        with api.changed:
            fault = api.fault(method)
            api.calls.append(method)
        if fault and fault.what == "cut":
            return self.hang_up()
        if fault and isinstance(fault.what, int):
            more = {"parameters": {"retry_after": fault.retry_after}} if fault.retry_after else {}
            return self.answer({"ok": False, "error_code": fault.what, "description": "fault"} | more, fault.what)
        if fault and isinstance(fault.what, str) and fault.what.startswith(("{", "[")):
            return self.answer(json.loads(fault.what))
        if bot != f"bot{TOKEN}":
            return self.refuse(401, "Unauthorized")
        result = getattr(self, method)()
        if fault and fault.what == "lost":
            return self.hang_up()
        if isinstance(result, tuple):
            return self.refuse(*result)
        return self.answer({"ok": True, "result": result})

    def hang_up(self) -> None:
        self.close_connection = True

    def refuse(self, status: int, description: str) -> None:
        self.answer({"ok": False, "error_code": status, "description": description}, status)

    def answer(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # The methods

    def getMe(self) -> Any:
        return BOT | {"can_join_groups": True, "can_read_all_group_messages": True, "supports_inline_queries": False}

    def deleteWebhook(self) -> Any:
        return True

    def getUpdates(self) -> Any:
        api = self.server
        offset, seconds = int(self.fields.get("offset", 0)), float(self.fields.get("timeout", 0))
        with api.changed:
            api.poller += 1
            mine = api.poller
            api.updates = [update for update in api.updates if update["update_id"] >= offset]
            api.confirmed = max(api.confirmed, offset)
            api.changed.notify_all()
            api.changed.wait_for(lambda: api.updates or api.poller != mine, seconds)
            if api.poller != mine:
                return 409, "Conflict: terminated by other getUpdates request"
            return list(api.updates[: int(self.fields.get("limit", 100))])

    def sendMessage(self) -> Any:
        api, fields = self.server, self.fields
        text, entities = fields.get("text", ""), json.loads(fields.get("entities", "[]"))
        if not text.strip():
            return 400, "Bad Request: message text is empty"
        size = len(text.encode("utf-16-le")) // 2
        if size > 4096:
            return 400, "Bad Request: message is too long"
        if any(entity["offset"] + entity["length"] > size for entity in entities) or "parse_mode" in fields:
            return 400, "Bad Request: entities"
        connection = fields.get("business_connection_id", "")
        if connection and not api.connections.get(connection, {}).get("rights", {}).get("can_reply"):
            return 400, "Bad Request: BUSINESS_CONNECTION_INVALID"
        if connection and int(fields["chat_id"]) in api.quiet:
            return 400, "Bad Request: BUSINESS_PEER_USAGE_MISSING"
        markup = json.loads(fields.get("reply_markup", "{}"))
        with api.changed:
            number = api.next_message
            api.next_message += 1
            buttons = [button for row in markup.get("inline_keyboard", []) for button in row]
            raw = {name: value for name, value in fields.items() if name != "text"}
            chat = int(fields["chat_id"])
            sent = Sent(chat, number, text, entities, buttons, connection, raw, time.time())
            api.sent.append(sent)
            api.changed.notify_all()
        return api.shown(sent)

    def editMessageText(self) -> Any:
        api = self.server
        with api.changed:
            number = int(self.fields["message_id"])
            found = next((message for message in api.sent if message.id == number), None)
            if found is None:
                return 400, "Bad Request: message to edit not found"
            markup = json.loads(self.fields.get("reply_markup", "{}"))
            buttons = [button for row in markup.get("inline_keyboard", []) for button in row]
            if (found.text, found.buttons) == (self.fields["text"], buttons):
                return 400, "Bad Request: message is not modified"
            found.text, found.buttons = self.fields["text"], buttons
            api.changed.notify_all()
        return api.shown(found)

    def answerCallbackQuery(self) -> Any:
        api, query = self.server, self.fields["callback_query_id"]
        with api.changed:
            if query not in api.open_queries:
                return 400, "Bad Request: query is too old and response timeout expired or query ID is invalid"
            api.open_queries.discard(query)
            api.answered[query] = self.fields.get("text", "")
            api.changed.notify_all()
        return True

    def getBusinessConnection(self) -> Any:
        found = self.server.connections.get(self.fields["business_connection_id"])
        return found or (400, "Bad Request: BUSINESS_CONNECTION_INVALID")

    def sendChatAction(self) -> Any:
        self.server.typing.append(int(self.fields["chat_id"]))
        self.server.typing_goes_on.wait(SECONDS)
        return True
