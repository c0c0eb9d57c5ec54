"""Google Hangouts, the older chats of Google: `Hangouts.json` of a Takeout.

    {"conversations": [{"conversation": {"conversation": {"id": {"id": "C"}, "type": "GROUP", "name": "Trip",
            "self_conversation_state": {"self_read_state": {"participant_id": {"gaia_id": "1"}}},
            "participant_data": [{"id": {"gaia_id": "1", "chat_id": "1"}, "fallback_name": "Lea"}]}},
        "events": [{"sender_id": {"gaia_id": "1"}, "timestamp": "1420072200123456", "event_id": "E",
            "event_type": "REGULAR_CHAT_MESSAGE", "chat_message": {"message_content": {
                "segment": [{"type": "TEXT", "text": "words"}, {"type": "LINE_BREAK"}, {"type": "LINK", "text": "…"}],
                "attachment": [{"embed_item": {"type": ["PLUS_PHOTO"]}}]}}}]}]}

Until 2016 `{"conversation_state": [{"conversation_state": {"conversation": {…}, "event": […]}}]}`. Times are
microseconds. Other events are HANGOUT_EVENT (a call), PHONE_CALL, VOICEMAIL, ADD_USER, REMOVE_USER,
RENAME_CONVERSATION and more; SMS and MMS have a chat_message. Hangouts has no replies, edits or reactions.
Grammar from public parsers of Takeouts of 2014 to 2021; not checked against a real one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from training.extraction.json_stream import Thread, threads
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record, from_milliseconds
from training.extraction.source import Source, line_breaks, mapping, objects, string

NAME = "hangouts"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset()

OLD = "conversation_state"
PLACES = ("PLACE", "PLACE_V2")
CALLS = frozenset(("HANGOUT_EVENT", "PHONE_CALL", "VOICEMAIL"))


def recognise(source: Source, evidence: Evidence) -> str | None:
    if {"conversations.item.conversation.conversation", "conversations.item.events"} & evidence.paths:
        return "a JSON object whose conversations have Hangouts' events"
    if f"{OLD}.item.{OLD}" in evidence.paths:
        return "a JSON object of Hangouts' conversation_state"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    is_old = f'"{OLD}"'.encode() in source.head()
    found = threads(source, "event", OLD, wrapper=OLD) if is_old else threads(source, "events", "conversations")
    names: dict[str, str] = {}  # by id, over all conversations: a person may lack a name in one
    for thread in found:
        chat = _chat(thread, names)
        records = [_record(row, chat, names, position) for position, row in enumerate(thread.messages, thread.position)]
        times = [record.timestamp for record in records if record.timestamp]
        yield from reversed(records) if times and times[0] > times[-1] else records


def _chat(thread: Thread, names: dict[str, str]) -> Chat:
    """Without a name, the title is the other people's. Notes their names."""
    about = mapping(thread.about.get("conversation"))
    about = mapping(about.get("conversation")) or about
    people = objects(about.get("participant_data"))
    for person in people:
        name = string(person.get("fallback_name")) or string(mapping(person.get("phone_number")).get("e164"))
        if name.strip():
            names.setdefault(_id(person.get("id")), name.strip())
    state = mapping(mapping(about.get("self_conversation_state")).get("self_read_state"))
    me = _id(state.get("participant_id"))
    others = [_name(_id(person.get("id")), names) for person in people if _id(person.get("id")) != me]
    key = string(mapping(about.get("id")).get("id"))
    return Chat(key, string(about.get("name")) or ", ".join(others) or key or "Hangouts", is_id=bool(key))


def _name(person: str, names: Mapping[str, str]) -> str:
    """Neither the bare number nor one behind a space: some look like a telephone's, and are masked."""
    return names.get(person) or f"user_{person}"


def _record(event: Any, chat: Chat, names: Mapping[str, str], position: int) -> Record:
    timestamp = _timestamp(event.get("timestamp")) if isinstance(event, dict) else None
    if timestamp is None:
        return Record(chat, "", "", "", Kind.UNREADABLE, position)
    content = mapping(mapping(event.get("chat_message")).get("message_content"))
    segments = objects(content.get("segment"))
    text = line_breaks(
        "".join("\n" if each.get("type") == "LINE_BREAK" else string(each.get("text")) for each in segments)
    )
    sender, number = _name(_id(event.get("sender_id")), names), string(event.get("event_id"))
    return Record(chat, timestamp, sender, text, _kind(event, content, text), position, number)


def _kind(event: Mapping[str, Any], content: Mapping[str, Any], text: str) -> Kind:
    if "chat_message" not in event:
        return Kind.CALL if event.get("event_type") in CALLS or "hangout_event" in event else Kind.SYSTEM
    if text.strip():
        return Kind.MESSAGE
    embedded = [mapping(each.get("embed_item")).get("type") for each in objects(content.get("attachment"))]
    if any(name in PLACES for names in embedded if isinstance(names, list) for name in names):
        return Kind.LOCATION
    return Kind.MEDIA if embedded else Kind.EMPTY


def _timestamp(microseconds: Any) -> str | None:
    try:
        return from_milliseconds(int(microseconds) / 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def _id(person: Any) -> str:
    found = mapping(person)
    return string(found.get("gaia_id")) or string(found.get("chat_id"))
