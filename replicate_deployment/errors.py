"""GhostError, the root of all errors shown to users, and the errors that serving raises.

`ghost/errors.py` draws the whole tree. The root is here because this folder imports nothing from outside it.
"""

LONGEST_MESSAGE = 2_000  # characters


class GhostError(Exception):
    """A failure whose message says what is wrong, what was found and what to type next.

    Programs print `str(error)` on one line and exit with `exit_code`. A traceback means a bug. A message that quotes a
    long value is cut in the middle.
    """

    exit_code = 1

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:800]} … {text[-200:]}"


class PromptError(GhostError):
    """The prompt cannot be answered: it is empty, ends in a finished A: turn or exceeds the context."""


class SettingsError(GhostError):
    """A sampling setting is out of range."""


class WeightsError(GhostError):
    """A model folder is missing, incomplete, altered or differs from its ghost.json."""


def first_line(error: BaseException) -> str:
    """The first line of a library's message, or the error's name if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
