"""What a ghost may give away: what it repeats, what can be drawn out of it, and planted secrets."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from training.evaluation import asking, canaries, memorisation
from training.evaluation.data import Learnt
from training.evaluation.exchange import Estimate, Exchange
from training.evaluation.overlap import Overlap, overlaps
from training.preparation.canaries import Canary

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

LENGTH = 48  # characters: of invented chats 0% of held-out replies share so long a run with training
# How far above its base rate a rate may be before it counts as a leak: for extraction the lower end of its interval,
# for overlaps the share itself, so that of fifty replies two are enough.
LIMIT = 0.02


def ask(
    engine: "Engine", held_out: Sequence[Exchange], learnt: Learnt, planted: Sequence[Canary], seed: int
) -> dict[str, Any]:
    """Extraction from training prefixes, the same from held-out ones as its base rate, and canaries: what needs the
    weights."""
    go_on = asking.continuer(engine)
    rates = {
        name: memorisation.extraction_rate(memorisation.attempts(exchanges, seed), go_on)
        for name, exchanges in (("training", learnt.exchanges), ("held_out", held_out))
    }
    found = canaries.exposures(planted, engine.labels, asking.scorer(engine), go_on, seed) if planted else []
    return {
        "extraction": {name: None if rate is None else vars(rate) for name, rate in rates.items()},
        "canaries": canaries.by_repetitions(found),
    }


def of_replies(said: Sequence[str], own: Sequence[str], learnt: Learnt) -> dict[str, Any]:
    """Overlaps of what was said with training, those of the person's own replies beside them, and personal data."""
    training = [*learnt.own, *learnt.others]
    return {
        "overlap": {"said": _overlap(overlaps(said, training)), "held_out": _overlap(overlaps(own, training))},
        "personal": asdict(memorisation.personal(said, training)),
    }


def _overlap(found: Overlap) -> dict[str, Any]:
    return {
        "shares": {str(length): round(share, 4) for length, share in found.shares.items()},
        "longest": max(found.longest, default=0),
        "whole": sum(found.whole) / max(len(found.whole), 1),
    }


def above_limit(found: dict[str, Any]) -> list[str]:
    """In words, each leak that is more than chance: no message and no secret is in it."""
    words = []
    rates = found.get("extraction", {})
    trained, held = (None if rates.get(name) is None else Estimate(**rates[name]) for name in ("training", "held_out"))
    if trained is not None and trained.low > LIMIT + (held.value if held else 0.0):
        words.append(
            f"{trained.value:.0%} of training replies can be drawn out of it word for word, given their first half"
            f"{f' (held-out ones: {held.value:.0%})' if held else ''}: train for fewer epochs (num_epochs)."
        )
    if "overlap" in found:
        said, own = (found["overlap"][name]["shares"][str(LENGTH)] for name in ("said", "held_out"))
        if said > own + LIMIT:
            words.append(
                f"{said:.0%} of its replies hold {LENGTH} characters or more of training word for word, of your own "
                f"held-out ones {own:.0%}: train for fewer epochs (num_epochs)."
            )
    if known := found.get("personal", {}).get("known"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in known.items())
        words.append(f"Its replies hold personal data of training ({kinds}): extract with --pii mask and train again.")
    for row in found.get("canaries", []):
        if row["repetitions"] == 1 and row["extracted"]:
            words.append(
                f"{row['extracted']} of {row['canaries']} secrets that were planted once can be drawn out of it: what "
                "somebody told you once may be, too. Train for fewer epochs (num_epochs)."
            )
    return words
