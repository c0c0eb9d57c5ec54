"""val.about.jsonl: of each line of val.jsonl, where it is from, so that held-out figures can be told apart.

It lies beside val.jsonl rather than in it, which stays what Axolotl loads. No name and no time of day is in it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from training.preparation.prepared import Prepared
from training.speakers import platform_of

NAME = "val.about.jsonl"
LOOKED_AT = 400  # characters of a conversation by which its language is told: a few turns


def about(prepared: Prepared) -> list[dict[str, Any]]:
    """Of each line of val.jsonl, in its order:

    conversation  its number among all of the data set, from 0
    first, last   the line's turns, by their place in the conversation
    platform      the folder of the chat's CSV; "" when it lay in none
    language      of the conversation, ISO 639-1; "und" when nobody can tell
    """
    found: list[dict[str, Any]] = []
    for number in range(prepared.training, len(prepared.conversations)):
        talk, stretches = prepared.conversations[number], prepared.examples.by_conversation[number]
        if stretches:
            about = {"platform": platform_of(talk.path), "language": _language([turn.text for turn in talk.turns])}
            found += [{"conversation": number, "first": first, "last": last, **about} for first, last in stretches]
    return found


def encode(found: Sequence[Mapping[str, Any]]) -> bytes:
    """A JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in found).encode()


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """For the report: lines of val.jsonl by platform and by language, the most first."""
    return {key: dict(Counter(str(one[key]) for one in found).most_common()) for key in ("platform", "language")}


def _language(texts: list[str]) -> str:
    """Of the texts as one: told once for a conversation, it costs a million messages two seconds, and not minutes."""
    from training.extraction.languages import UNDETERMINED, languages

    text = " ".join(" ".join(texts)[:LOOKED_AT].split())
    return next(iter(languages([text])), UNDETERMINED) if text else UNDETERMINED
