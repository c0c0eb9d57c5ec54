"""`--pii mask`: what is personal in a message's body becomes a short word, counted by kind and never by value."""

import re
from collections import Counter
from collections.abc import Sequence

from training.extraction.privacy.phone import DEFAULT_REGIONS
from training.extraction.privacy.recognisers import DIGITS, find

# Nothing that `find` finds is without a digit or an @, but for a parameter's value and, once in thirty, an AWS key id.
WORTH_A_LOOK = re.compile(f"[{DIGITS}@]").search


class Masker:
    """One for each extraction.

    regions  countries (ISO 3166 alpha-2) whose national phone numbers are recognised; `phone.regions_of` infers them
    counts   replacements by kind: the words of recognisers.KINDS
    """

    def __init__(self, regions: Sequence[str] = DEFAULT_REGIONS) -> None:
        self.regions = regions
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        """The text with every find replaced by its kind in brackets; the same object when there is none."""
        if not WORTH_A_LOOK(text) and "=" not in text and "AKIA" not in text:
            return text
        # Again, as a word in brackets may stand where something made a find doubtful: masking twice is masking once.
        while finds := find(text, self.regions):
            pieces: list[str] = []
            end = 0
            for one in finds:
                pieces += text[end : one.start], f"[{one.kind}]"
                end = one.end
                self.counts[one.kind] += 1
            text = "".join(pieces) + text[end:]
        return text
