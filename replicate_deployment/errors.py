"""The root of every error that a person is meant to read, and the branch that serving can raise.

The whole tree is drawn in `ghost/errors.py`. The root lives here because nothing in this folder may import
from outside it.
"""


class GhostError(Exception):
    """A failure with a message for a person: what is wrong, what was found, what to type next.

    Programs print `str(error)` on one line and exit with `exit_code`; a traceback means a bug of ours.
    """

    exit_code = 1


class PromptError(GhostError):
    """The prompt cannot be answered: empty, ends in a finished A: turn, longer than the context."""


class SettingsError(GhostError):
    """A sampling setting is out of range."""


class WeightsError(GhostError):
    """A model folder is missing, incomplete, altered or not what its ghost.json says."""
