"""The grammar of WhatsApp's text exports: headers, bodies, and its own words in every language."""

from importlib.resources import files


def wording(name: str) -> tuple[str, ...]:
    """The lines of a list in wording/, without its comments."""
    text = files(__package__).joinpath("wording", f"{name}.txt").read_text("utf-8")
    return tuple(line for line in text.split("\n") if line and not line.startswith("#"))
