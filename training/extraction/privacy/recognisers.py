"""Where in a text something personal stands, by kind.

Libraries decide where they can: phonenumbers (phone), python-stdnum (checksums of IBANs, cards, national ids),
ipaddress. The rest are shapes of our own, since presidio-analyzer and scrubadub bring spaCy or scikit-learn along for
theirs, and detect-secrets' plugins bring `requests` and may ask the network whether a key works. Every repetition is
bounded, so that a line of ten megabytes takes time in proportion.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from stdnum import iban, luhn
from stdnum.fr import nir
from stdnum.us import ssn

from training.extraction.privacy import phone

Span = tuple[int, int]


class Find(NamedTuple):
    start: int
    end: int
    kind: str


GAP = r"[ \u00a0\u202f.\-]"
DIGITS = "0-9٠-٩۰-۹０-９"  # spelled out: a third of the time of \d, which looks each character up
WESTERN = {ord(digit): str(value % 10) for value, digit in enumerate("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹０１２３４５６７８９")}
NINE_DIGITS = re.compile(rf"[{DIGITS}](?:\W{{0,3}}[{DIGITS}ABab]){{8}}")  # Corsica's 2A and 2B in a NIR
WEIGHTS = {letter: str(int(letter, 36)) for letter in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # ISO 7064
SIXTEEN = re.compile(r"[A-Za-z0-9_-]{16}")

KEY = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"sk-(?=[\w-]{0,40}[A-Za-z0-9]{12})(?=[\w-]{0,100}\d)[\w-]{20,200}"  # OpenAI, Anthropic; not sk-learn-tutorial
    r"|[spr]k_(?:live|test)_[A-Za-z0-9]{16,128}"  # Stripe
    r"|gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{22,255}|glpat-[\w-]{20,64}"
    r"|xox[abeoprs]-[\w-]{10,255}"  # Slack
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{30,40}|ya29\.[\w-]{20,255}"  # AWS, Google
    r"|(?:hf|r8|npm)_[A-Za-z0-9]{30,64}|pypi-[\w-]{50,255}|SG\.[\w-]{16,32}\.[\w-]{16,64}"
    r"|(?:bot)?\d{8,10}:[A-Za-z0-9_-]{30,50}"  # Telegram
    r"|(?<![\w-]-)eyJ[\w-]{8,4096}+\.eyJ[\w-]{8,4096}+(?:\.[\w-]{0,4096})?"  # JWT, looked for once in a row of them
    r")(?![A-Za-z0-9])"
)
PEM_BEGIN = re.compile("-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
PEM_END = re.compile("-----END [A-Z ]{0,40}PRIVATE KEY-----")
LONGEST_KEY = 20_000  # characters between the two
USER_AND_PASSWORD = re.compile(r"://([^\s/?#@:\[\]]{0,128}:[^\s/?#]{1,256})@")
SECRET_PARAMETER = re.compile(
    r"[?&#;](?:[\w.-]{0,32}[_.-])?(?:token|secret|passw(?:or)?d|passwd|pwd|pass|api_?key|apikey|sig|signature|auth"
    r"|credential|session_?id)=(?!\[\w+\])([^&#\s\"'<>)\]]{4,4096})",
    re.IGNORECASE,
)
MAILBOX = re.compile(r"[\w.%+'’-]{1,64}\Z")
DOMAIN = re.compile(r"(?:[\w-]{1,63}\.){1,8}(?:xn--[\w-]{2,59}|[^\W\d_]{2,24})")
# Looked ahead: "id42 FR76 3000 …" is two candidates, and the second is one.
IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}[0-9]{2}(?:[ \u00a0\u202f.-]?[A-Za-z0-9]){11,30}))")
CARD = re.compile(
    r"(?<!\d)(?=("
    rf"(?:4\d{{3}}|5[1-5]\d\d|2[2-7]\d\d|6\d{{3}}|35\d\d)({GAP}?)\d{{4}}\2\d{{4}}\2\d{{4}}(?:\2\d{{3}})?(?!\d)"
    rf"|3[47]\d\d({GAP}?)\d{{6}}\3\d{{5}}(?!\d)"
    rf"|3(?:0[0-5]|[68]\d)\d({GAP}?)\d{{6}}\4\d{{4}}(?!\d)"
    r"))"
)
NIR = re.compile(
    rf"(?<!\w)[123478]{GAP}?\d\d{GAP}?\d\d{GAP}?(?:\d\d|2[ABab]){GAP}?\d{{3}}{GAP}?\d{{3}}{GAP}{{0,3}}\d\d(?!\w)"
)
SSN = re.compile(r"(?<![\w-])(?:\d{3}-\d\d-\d{4}|\d{3}[ .]\d\d[ .]\d{4}|\d{9})(?![\w-])")
SOCIAL = re.compile(r"\b(?:ssn|social)\b", re.IGNORECASE)
IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d|-[^\W\d])")
IP6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?!\w)")
VERSION = re.compile(r"(?:version|v|build|release|firmware|driver|upgraded? to|updated? to)\W{0,2}\Z", re.IGNORECASE)


def find(text: str, regions: Sequence[str] = phone.DEFAULT_REGIONS) -> list[Find]:
    """Everything personal in text, in order, none overlapping; of overlapping ones a secret, or the longest, stays."""
    finds: list[Find] = []
    if "@" in text:
        finds += _all("email", emails(text))
        finds += _all("secret", (match.span(1) for match in USER_AND_PASSWORD.finditer(text)))
    if "=" in text:
        finds += _all("secret", (match.span(1) for match in SECRET_PARAMETER.finditer(text)))
    if SIXTEEN.search(text):
        finds += _all("key", (match.span() for match in KEY.finditer(text)))
    if "PRIVATE KEY-----" in text:
        finds += _all("key", private_keys(text))
    if "+" in text or NINE_DIGITS.search(text):
        western = text if text.isascii() else text.translate(WESTERN)
        for kind, spans in NUMBERS:
            finds += _all(kind, spans(western))
        finds += _all("phone", phone.spans(western, regions))
    if text.count(".") > 2 or text.count(":") > 1:
        finds += _all("ip", addresses(text))
    return _apart(finds, len(text)) if len(finds) > 1 else finds


def _all(kind: str, spans: Iterator[Span]) -> Iterator[Find]:
    return (Find(start, end, kind) for start, end in spans)


def _apart(finds: list[Find], length: int) -> list[Find]:
    """Secrets first, as what follows a password's @ looks like mail; of equally long ones, the first in KINDS."""
    kept: list[Find] = []
    taken = bytearray(length)
    for one in sorted(finds, key=lambda one: (one.kind != "secret", one.start - one.end, KINDS.index(one.kind))):
        if 1 not in taken[one.start : one.end]:
            taken[one.start : one.end] = b"\x01" * (one.end - one.start)
            kept.append(one)
    return sorted(kept)


def private_keys(text: str) -> Iterator[Span]:
    """PEM blocks; one that nothing closes goes on to the text's end."""
    end = 0
    for begin in PEM_BEGIN.finditer(text):
        if begin.start() >= end:
            limit = begin.end() + LONGEST_KEY
            closing = PEM_END.search(text, begin.end(), limit)
            if closing or limit >= len(text):
                end = closing.end() if closing else len(text)
                yield begin.start(), end


def emails(text: str) -> Iterator[Span]:
    """From each @ outwards: searching for a mailbox first would take quadratic time on a long word."""
    at = text.find("@")
    while at != -1:
        domain = DOMAIN.match(text, at + 1)
        mailbox = MAILBOX.search(text[max(0, at - 64) : at]) if domain else None
        if mailbox and domain and (name := mailbox[0].lstrip("'’.-+%")):
            yield at - len(name), domain.end()
        at = text.find("@", at + 1)


def ibans(text: str) -> Iterator[Span]:
    """A country's IBANs have one length; whatever follows within the candidate is the next word."""
    for match in IBAN.finditer(text):
        ends = [index for index in range(match.start() + 15, match.end(1) + 1) if not text[index : index + 1].isalnum()]
        for end in ends:
            number = re.sub(GAP, "", text[match.start() : end]).upper()
            # The check digits alone, at a tenth of the cost, as each word of four may start a candidate.
            if int("".join(WEIGHTS[letter] for letter in number[4:] + number[:4])) % 97 == 1 and iban.is_valid(
                number, check_country=False
            ):
                yield match.start(), end
                break


def cards(text: str) -> Iterator[Span]:
    for match in CARD.finditer(text):
        if luhn.is_valid(re.sub(GAP, "", match[1])):
            yield match.span(1)


def national_ids(text: str) -> Iterator[Span]:
    """French NIR by its key. A US number has no check digit: only with its dashes, or named as what it is."""
    for match in NIR.finditer(text):
        if nir.is_valid(re.sub(GAP, "", match[0])):
            yield match.span()
    for match in SSN.finditer(text):
        named = "-" in match[0] or SOCIAL.search(text, max(0, match.start() - 40), match.start())
        if named and ssn.is_valid(re.sub(GAP, "", match[0])):
            yield match.span()


def addresses(text: str) -> Iterator[Span]:
    """Of this many dots, four single digits are a version or a public resolver (1.1.1.1), nobody's address."""
    for match in IP4.finditer(text):
        if len(match[0]) > len("1.1.1.1") and not VERSION.search(text[max(0, match.start() - 16) : match.start()]):
            yield from _address(match[0], match.span())
    for match in IP6.finditer(text):
        value = match[0] if match[0].endswith("::") else match[0].rstrip(":")
        groups = [group for group in value.split(":") if group]
        if len(groups) > 2 or any(len(group) == 4 for group in groups):  # 1::2 and a::b are people's punctuation
            yield from _address(value, (match.start(), match.start() + len(value)))


def _address(value: str, span: Span) -> Iterator[Span]:
    try:
        address = ip_address(value)
    except ValueError:
        return
    if not (address.is_loopback or address.is_unspecified or (isinstance(address, IPv6Address) and value == "::")):
        yield span


NUMBERS: tuple[tuple[str, Callable[[str], Iterator[Span]]], ...] = (
    ("iban", ibans),
    ("card", cards),
    ("id", national_ids),
)
KINDS = ("key", "secret", "email", "iban", "card", "id", "ip", "phone")
