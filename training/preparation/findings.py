"""A data set looked at before money is spent on it: figures, leakage, lengths, languages, and doubts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from training.preparation import about, leftovers, recipes, report
from training.preparation.concerns import Concern, concerns, own_languages
from training.preparation.fit import Fit, fit
from training.preparation.leakage import leakage
from training.preparation.leftovers import Leftover
from training.preparation.prepared import Prepared

if TYPE_CHECKING:
    from training.preparation.consent import Kept


@dataclass(frozen=True)
class Findings:
    """figures is preparation_report.json; held_out tells of each line of val.jsonl where it is from; leftovers is what
    may still be personal; the others are the parts of the figures that the page draws."""

    figures: dict[str, Any]
    leakage: Mapping[str, Any]
    fit: Fit
    languages: Mapping[str, Mapping[str, float]]
    concerns: list[Concern]
    held_out: list[dict[str, Any]]
    leftovers: dict[str, list[Leftover]]


def find(prepared: Prepared, kept: "Kept", tokenizer: Any | None, sequence_len: int) -> Findings:
    """tokenizer as of fit.tokenizer_at_hand; without one, lengths are estimates and say so."""
    from training.preparation import consent

    leaks, lengths = leakage(prepared), fit(prepared, tokenizer, sequence_len)
    languages, held_out, suspicious = own_languages(prepared), about.about(prepared), leftovers.leftovers(prepared)
    found = concerns(prepared, leaks, lengths, languages)
    figures = {
        **report.figures(prepared),
        "left_out": kept.left_out,
        "groups": consent.groups(prepared, kept.sizes),
        "exposure": _exposure(prepared),
        "leakage": leaks,
        "lengths": asdict(lengths),
        "languages": {half: dict(shares) for half, shares in languages.items()},
        "held_out_lines": about.counts(held_out),
        "leftovers": leftovers.account(suspicious),
        "concerns": [asdict(concern) for concern in found],
    }
    return Findings(figures, leaks, lengths, languages, found, held_out, suspicious)


def _exposure(prepared: Prepared) -> dict[str, Any]:
    """What an epoch shows how often, and which replies are never learnt; validation is cut up alike, and counted."""
    sides = [[turn.label == prepared.labels.me for turn in talk.turns] for talk in prepared.conversations]
    return recipes.exposure(prepared.recipe, sides, prepared.examples).figures
