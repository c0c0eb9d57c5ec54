"""What `ghost evaluate` found that a model gives away, between it and the Hub."""

import json
from pathlib import Path

from ghost.errors import DataError, HubError
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import Ghost

EVALUATION = Path("report") / "evaluation.json"


def above_limit(evaluation: Path, ghost: Ghost) -> list[str] | None:
    """The leaks of this very model that are above their limits, in words; None where it was not evaluated.

    A merge gives a ghost.json of its own, so its hash says whose evaluation this is. One beside other training lines
    than the model's finds none of what it learnt. Raises DataError on a file that `ghost evaluate` did not write.
    """
    if not evaluation.is_file():
        return None
    try:
        found = json.loads(evaluation.read_text(encoding="utf-8"))
        if found["model"].get("ghost_sha256") != ghost_json.sha256(ghost.folder / ghost_json.NAME):
            return None
        leaks = [str(leak) for leak in found["leaks"]["above_limit"]]
        return leaks if leaks or found["model"].get("learnt_by_it", True) else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{evaluation}: not as `ghost evaluate` wrote it ({type(error).__name__}); type: "
            f"ghost evaluate {ghost.folder} --out {evaluation.parent}"
        ) from error


def refuse(leaks: list[str], evaluation: Path, again: str, repo: str) -> None:
    """Raises HubError unless there is nothing to refuse. Whoever may read the repo may draw it out of the model."""
    if leaks:
        # An evaluation made by another version may hold them without a full stop.
        told = " ".join(leak if leak.endswith(".") else f"{leak}." for leak in leaks)
        raise HubError(
            f"{evaluation} says what it gives away: {told} Nothing was sent; to push it all the same: "
            f"{again} --despite-leaks {repo}"
        )
