"""What became of the bot's drafts, as `ghost bot --corrections FILE` writes it, a JSON line for each draft:

    {"context": [["other", "on mange où ?"]], "label": "edited", "draft": "au restaurant", "final": "chez moi",
     "time": "2025-03-02T18:04:11+00:00"}

    sent       as the ghost wrote it: `final` is the draft
    edited     rewritten by the person before it was sent
    another    refused for another draft; `final` is what was sent in the end, or null
    discarded  `final` is null
    own        the person answered by hand instead, with `final`

`ghost prepare --corrections` trains on what the person wrote themselves: the finals of `edited` and `own`.
`ghost train --preferences` learns from all of it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ghost.errors import DataError
from replicate_deployment.chat_format import Labels, Turn, well_formed
from training.preparation.dataset import SIZES, Prepared

Outcome = Literal["sent", "edited", "another", "discarded", "own"]
WRITTEN: tuple[Outcome, ...] = ("edited", "own")  # by the person


class Correction(msgspec.Struct, frozen=True):
    """`context` ends with the other side's turn; draft and final are un-escaped."""

    context: tuple[Turn, ...]
    label: Outcome
    draft: str
    final: str | None
    time: datetime


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    context: list[tuple[Literal["me", "other"], str]]
    label: Outcome
    draft: str
    final: str | None
    time: Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True)
class Corrections:
    """The corrections to use, and counts of all that were read by what became of them."""

    used: list[Correction]
    counts: Counter[str]

    @property
    def figures(self) -> dict[str, Any]:
        return {"read": sum(self.counts.values()), **dict(self.counts)}


def read(path: Path, prepared: Prepared) -> Corrections:
    """Read the replies that the person wrote themselves.

    Leave out, and count, drafts that they did not rewrite, repeated replies, and those that are also in the chats: such
    a reply would count double in training, or leak if held out. Raises DataError as `parse` does.
    """
    counts = Counter({"used": 0, "not_rewritten": 0, "repeated": 0, "in_train": 0, "in_val": 0})
    in_train, in_val = (_replies(prepared, half) for half in ("train", "val"))
    used: dict[tuple[tuple[Turn, ...], str | None], Correction] = {}
    for one in parse(path, prepared.labels):
        key = (one.context[-1].text, one.final)
        if one.label not in WRITTEN:
            why = "not_rewritten"
        elif (one.context, one.final) in used:
            why = "repeated"
        else:
            why = "in_val" if key in in_val else "in_train" if key in in_train else "used"
        counts[why] += 1
        if why == "used":
            used[one.context, one.final] = one
    return Corrections(list(used.values()), counts)


def turns(one: Correction, labels: Labels) -> list[Turn]:
    """What trains of it: at most as many turns of context as the longest window, and the reply."""
    return [*one.context[-SIZES[-1] :], Turn(labels.me, one.final or "")]


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


def parse(path: Path, labels: Labels) -> Iterator[Correction]:
    """Yield the corrections of a file, in its order. Raises DataError with the line that the bot did not write."""
    try:
        rows = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it with: ghost bot --corrections {path}") from error
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            line = msgspec.json.decode(row, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # a ValidationError is a DecodeError
            raise DataError(
                f"{path}, line {number}: not as ghost bot writes it ({error}); write a file anew: "
                "ghost bot --corrections NEW --again"
            ) from error
        sides = {"me": labels.me, "other": labels.other}
        turns = tuple(Turn(sides[side], well_formed(text)) for side, text in line.context)
        draft = well_formed(line.draft).strip()
        final = None if line.final is None else well_formed(line.final).strip()
        if why := _contradiction(turns, line.label, draft, final, labels):
            raise DataError(f"{path}, line {number}: {why}")
        yield Correction(turns, line.label, draft, final, line.time)


def _contradiction(turns: Sequence[Turn], label: Outcome, draft: str, final: str | None, labels: Labels) -> str:
    """What cannot be, or an empty text."""
    if not turns or turns[-1].label != labels.other:
        return "its context does not end with a turn of the other side"
    if not draft or final == "":
        return "an empty text"
    if label == "discarded" and final is not None:
        return "discarded, but with a final text"
    if label in ("sent", *WRITTEN) and final is None:
        return f"{label}, but without a final text"
    if label == "sent" and final != draft:
        return "sent as it was, but the final text is not the draft"
    return ""
