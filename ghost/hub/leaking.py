"""Leaks that `ghost evaluate` found in a model, checked before it goes to the Hub."""

import json
from pathlib import Path

from ghost.errors import DataError, HubError
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import Ghost

EVALUATION = Path("report") / "evaluation.json"


def above_limit(evaluation: Path, ghost: Ghost) -> list[str] | None:
    """The messages for this model's leaks above their limits; None if it was not evaluated.

    Every merge writes a ghost.json of its own, so its hash identifies the model. Leaks of another model count too if
    that was trained on the same lines: merging anew does not mend them. An evaluation that used other training lines
    than the model's finds no leaks and counts as none. Raises DataError on a file that `ghost evaluate` did not write.
    """
    if not evaluation.is_file():
        return None
    try:
        found = json.loads(evaluation.read_text(encoding="utf-8"))
        is_it = found["model"].get("ghost_sha256") == ghost_json.sha256(ghost.folder / ghost_json.NAME)
        trained = (ghost.facts.get("data") or {}).get("train_sha256")
        if not is_it and (trained is None or found["model"].get("train_sha256") != trained):
            return None
        leaks = [str(leak) for leak in found["leaks"]["above_limit"]]
        if not is_it:
            return leaks or None
        return leaks if leaks or found["model"].get("learnt_by_it", True) else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{evaluation}: not written by `ghost evaluate` ({type(error).__name__}); type: "
            f"ghost evaluate {ghost.folder} --out {evaluation.parent}"
        ) from error


def refuse(leaks: list[str], evaluation: Path, again: str, repo: str) -> None:
    """Raises HubError if there are leaks: anyone who can read the repo could extract them from the model."""
    if leaks:
        # An evaluation by another version may lack the full stops.
        found = " ".join(leak if leak.endswith(".") else f"{leak}." for leak in leaks)
        raise HubError(
            f"{evaluation} lists leaks: {found} Nothing was uploaded; evaluate a model that was merged anew, "
            f"or to push anyway: {again} --despite-leaks {repo}"
        )
