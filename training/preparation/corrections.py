"""Bot drafts that the person rewrote before sending: more replies to learn, and preference pairs.

The bot exports them (`ghost bot --corrections FILE`) as JSON lines:

    {"context": [["other", "on mange où ?"]], "draft": "au restaurant", "final": "chez moi"}

`final` is what the person sent, so it becomes a training line after its context. Both become a pair of
preferences.jsonl, with the keys `prompt`, `chosen` and `rejected` of preference trainers (DPO, arXiv:2305.18290):
prompt + chosen is the text of the training line without its last end token.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ghost.errors import DataError
from replicate_deployment.chat_format import Labels, Turn, escape, render_line
from training.extraction.pii import Masker
from training.preparation.dataset import SIZES, Prepared

NAME = "preferences.jsonl"
FIELDS = ("context", "draft", "final")


class Correction(NamedTuple):
    """`context` ends with the other side's turn; draft and final are un-escaped, and differ."""

    context: tuple[Turn, ...]
    draft: str
    final: str


@dataclass(frozen=True)
class Corrections:
    """The corrections to use, and counts of all that were read by what became of them."""

    used: list[Correction]
    counts: Counter[str]
    masked: int

    @property
    def figures(self) -> dict[str, Any]:
        return {"read": sum(self.counts.values()), **dict(self.counts), "masked": self.masked}


def read(path: Path, prepared: Prepared) -> Corrections:
    """Read the corrections of a file, and mask personal data as extraction does.

    Leave out, and count, repeated ones and those whose reply is also in the chats: it would count double in training,
    or leak if held out. Raises DataError with the line that the bot did not write.
    """
    masker, counts = Masker(), Counter({"used": 0, "repeated": 0, "in_train": 0, "in_val": 0})
    in_train, in_val = (_replies(prepared, half) for half in ("train", "val"))
    used: dict[Correction, None] = {}
    for found in _parsed(path, prepared.labels):
        context = tuple(Turn(turn.label, masker.mask(turn.text)) for turn in found.context)
        one = Correction(context, masker.mask(found.draft), masker.mask(found.final))
        key = (context[-1].text, one.final)
        why = "repeated" if one in used else "in_val" if key in in_val else "in_train" if key in in_train else "used"
        counts[why] += 1
        if why == "used":
            used[one] = None
    return Corrections(list(used), counts, sum(masker.counts.values()))


def lines(corrections: Sequence[Correction], prepared: Prepared) -> bytes:
    """Their lines of train.jsonl, newlines included: at most as many turns of context as the longest window, and the
    reply."""
    labels, recipe = prepared.labels, prepared.recipe
    turns = ([*one.context[-SIZES[-1] :], Turn(labels.me, one.final)] for one in corrections)
    return b"".join(
        b'{"text": ' + msgspec.json.encode(render_line(some, labels, recipe=recipe)) + b"}\n" for some in turns
    )


def preferences(corrections: Sequence[Correction], prepared: Prepared) -> bytes:
    """The lines of preferences.jsonl. A reply begins with the space that follows the tag in the prompt."""
    labels, recipe = prepared.labels, prepared.recipe
    pairs = (
        {
            "prompt": f"{render_line(one.context[-SIZES[-1] :], labels, recipe=recipe)}\n{labels.me}",
            "chosen": f" {escape(one.final, labels)}",
            "rejected": f" {escape(one.draft, labels)}",
        }
        for one in corrections
        if one.draft != one.final  # masking can make them the same
    )
    return b"".join(msgspec.json.encode(pair) + b"\n" for pair in pairs)


def account(figures: dict[str, Any], corrections: Corrections) -> None:
    """Add their counts to the figures of the report."""
    figures["corrections"] = corrections.figures
    figures["lines"] |= {half: figures["lines"][half] + len(corrections.used) for half in ("train", "total")}


def _replies(prepared: Prepared, half: str) -> set[tuple[str, str]]:
    """All (turn, reply) pairs of the training or the validation half."""
    talks = prepared.conversations
    some = talks[: prepared.training] if half == "train" else talks[prepared.training :]
    me = prepared.labels.me
    return {
        (before.text, here.text)
        for talk in some
        for before, here in zip(talk.turns, talk.turns[1:], strict=False)
        if here.label == me != before.label
    }


def _parsed(path: Path, labels: Labels) -> Iterator[Correction]:
    try:
        rows = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it with: ghost bot --corrections {path}") from error
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            document = msgspec.json.decode(row)
            context, draft, final = (document[name] for name in FIELDS)
            turns = tuple(Turn({"me": labels.me, "other": labels.other}[side], str(text)) for side, text in context)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: not a correction as ghost bot writes it") from error
        if not turns or turns[-1].label != labels.other or not str(final).strip():
            raise DataError(f"{path}, line {number}: a correction answers the other side, with a text")
        yield Correction(turns, str(draft).strip(), str(final).strip())
