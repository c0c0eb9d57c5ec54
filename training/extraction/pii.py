"""Find personal data in a text, by kind, and replace it with a short word (`--pii mask`).

Libraries decide where they can: phonenumbers (phone numbers), python-stdnum (checksums of IBANs, cards, national ids),
ipaddress. The other patterns are our own: presidio-analyzer and scrubadub need spaCy or scikit-learn, and plugins of
detect-secrets may ask the network whether a key works. Every repetition is bounded, so a line of ten megabytes takes
linear time.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from ipaddress import IPv4Address, ip_address
from types import ModuleType
from typing import NamedTuple

from phonenumbers import (
    NumberParseException,
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberFormat,
    PhoneNumberType,
    country_code_for_region,
    example_number_for_type,
    format_number,
    is_possible_number,
    is_valid_number,
    ndd_prefix_for_region,
    parse,
    region_code_for_number,
)
from stdnum import iban, luhn
from stdnum.fr import nir
from stdnum.us import ssn

from training.extraction.named_values import Span, named_values

DEFAULT_REGIONS = ("FR", "GB", "US")
# Where most people who write a language live.
COUNTRIES = """
ar=EG SA DZ MA AE IQ, bg=BG, bn=BD IN, cs=CZ, da=DK, de=DE AT CH, el=GR CY, es=ES MX AR CO CL PE, et=EE, fa=IR, fi=FI,
fr=FR BE CH, he=IL, hi=IN, hr=HR, hu=HU, id=ID, it=IT CH, ja=JP, kk=KZ, ko=KR, lt=LT, lv=LV, ms=MY, nl=NL BE, no=NO,
pl=PL, pt=PT BR, ro=RO, ru=RU KZ, sk=SK, sl=SI, sq=AL, sr=RS, sv=SE, ta=IN, te=IN, th=TH, tl=PH, tr=TR, uk=UA, ur=PK,
uz=UZ, vi=VN, zh=CN TW HK
"""
REGIONS_OF_LANGUAGES = {
    language: tuple(regions.split())
    for language, _, regions in (pair.strip().partition("=") for pair in COUNTRIES.split(","))
}


class Detection(NamedTuple):
    start: int
    end: int
    kind: str


GAP = r"[ \u00a0\u202f.\-]"
DIGITS = "0-9٠-٩۰-۹０-９"  # spelled out, since \d takes three times as long
WESTERN = {ord(digit): str(value % 10) for value, digit in enumerate("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹０１２３４５６７８９")}
# Characters that a message needs to hold personal data, and an address that is spelled out.
SHORTEST, SHORTEST_SPELLED = 7, 15
# What a text has that holds personal data, but for RARE. Times, small numbers and smileys do not.
HINT = re.compile(
    rf"[{DIGITS}:：=!#_@/°\[(](?:(?<=[@=/°\[(])"
    r"|(?<=[:：])(?<![0-9]:)[ \u00a0]{0,3}\n?(?:[\w\"«“#*@]|'(?![()-]))|(?<=:)[0-9A-Fa-f]{0,4}:|(?<=\w[!#_])(?=\w)"
    rf"|(?<=\d)(?:[{DIGITS}]{{2}}|[{DIGITS}]?[ -][{DIGITS}]{{2}}|(?:\W{{0,3}}[{DIGITS}ABab]){{6}}"
    r"|[0-9]{0,2}(?:\.[0-9]{1,3}){3}"
    r"|(?<=[^\W\d_]{3}\d)|(?<=[^\W\d_]\d)[^\W\d_]|[^\W\d_hx]\d|(?<=[!#*_]\d)|(?<=[^\W\d_][.-]\d)"
    r"|[\w-]{5}|(?<=[\w-]{5}\d)))"  # a key
)
# Words that name an account or spell an address, and how an AWS key id begins: one in thirty has no digit.
RARE = (
    *("nsta", "snap", "Snap", "нста", "arroba", "arobas", "chiocciola", "AKIA"),
    *(" dot ", " punkt ", " nokta ", " точка "),
)
TOGETHER = 64  # messages that are searched for RARE at once
# Seven digits; or an Indian PAN, an Italian codice fiscale.
ID_HINT = re.compile(
    rf"[{DIGITS}](?:(?:\W{{0,3}}[{DIGITS}ABab]){{6}}|(?<=[A-Za-z]{{4}}\d)\d{{3}}|(?<=[A-Za-z]{{6}}\d)\d[A-Za-z]\d\d)"
)
# Between four digits and four more, whatever separates them: one number on two lines.
LINE_BREAK_IN_NUMBER = re.compile(r"(?:(?<=\d{4})|(?<=\d\d[ .-]\d\d))\n(?=(?:\d[ .-]?){3}\d)")
NINE_DIGITS = re.compile(rf"[{DIGITS}](?:\W{{0,3}}[{DIGITS}ABab]){{8}}")  # Corsica's 2A and 2B in a NIR
WEIGHTS = {letter: str(int(letter, 36)) for letter in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}  # ISO 7064
SIXTEEN = re.compile(r"[A-Za-z0-9_-]{16}")


class _Id(NamedTuple):
    """The number of a person in a region: python-stdnum's module, and the words that name it."""

    region: str
    module: str
    words: tuple[str, ...]


# France's and the United States' are in national_ids.
IDS = tuple(
    _Id(region, module, tuple(words))
    for region, module, *words in (
        line.split()
        for line in """
        AR ar.cuit cuil cuit
        AT at.vnr svnr sv-nummer
        AU au.tfn tfn
        BE be.nn niss rijksregisternummer
        BG bg.egn егн egn
        BR br.cpf cpf
        CA ca.sin
        CH ch.ssn avs ahv
        CL cl.rut rut
        CN cn.ric 身份证 身份证号
        CZ cz.rc rodné
        DE de.idnr steuer steuer-id steuerid idnr steueridentifikationsnummer
        DK dk.cpr cpr
        EE ee.ik isikukood
        ES es.dni dni nif
        ES es.nie nie
        FI fi.hetu hetu henkilötunnus
        GB gb.nhs nhs
        GR gr.amka αμκα amka
        HR hr.oib oib
        ID id.nik nik ktp
        IE ie.pps pps ppsn
        IL il.idnr תז ת.ז
        IN in_.aadhaar aadhaar aadhar adhaar adhar आधार
        IN in_.pan pan
        IT it.codicefiscale cf fiscale
        KR kr.rrn 주민번호 주민등록번호
        LT lt.asmens asmens
        MX mx.curp curp
        MY my.nric nric mykad
        NL nl.bsn bsn
        NO no.fodselsnummer fødselsnummer personnummer
        PK pk.cnic cnic
        PL pl.pesel pesel
        PT pt.nif nif contribuinte
        RO ro.cnp cnp
        RU ru.inn инн inn
        SE se.personnummer personnummer pnr
        SK sk.rc rodné
        TH th.pin บัตรประชาชน
        TR tr.tckimlik tc tckn kimlik
        UA ua.rntrc іпн рнокпп
        ZA za.idnr id
        """.strip().splitlines()
    )
)
ID_TOKEN = re.compile(
    r"(?<![\w.,/-])(?:(?P<groups>\d{1,6}(?: \d{1,6}){1,6})(?![\w/])|(?=[A-Za-z]{0,6}[.-]?\d)[A-Za-z0-9]{1,20}"
    r"(?:[.\-/+][A-Za-z0-9]{1,14}){0,4}(?![\w/-]))"
)
SHORTEST_ID = 8  # characters
ID_WORDS = frozenset(word for one in IDS for word in one.words)
NO_WORD = re.compile(r"(?!)")
A_WORD = re.compile(r"[^\W\d_][\w.-]*\w|[^\W\d_]")

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
# Whoever has such a link can enter the group, or the account.
SECRET_LINK = re.compile(
    r"(?<![\w.-])(?:chat\.whatsapp\.com/(?:invite/)?|(?:t|telegram)\.me/(?:\+|joinchat/)|discord(?:app)?\.(?:gg|com/invite)/"
    r"|signal\.group/#|join\.skype\.com/|meet\.google\.com/|teams\.live\.com/meet/)([\w=-]{5,256})"
    r"|/[a-z_-]{0,20}(?:invit|einlad|convi[dt]|davet|join|share|reset|recover|recuper|restab|passw|connexion|log-?in|sign-?in"
    r"|verif|confirm|activ|magic|token|auth|session)[a-z_-]{0,20}/(?=[\w-]{0,256}\d)([\w-]{16,256})(?![\w-])",
    re.IGNORECASE,
)
MAILBOX = re.compile(r"[\w.%+'’-]{1,64}\Z")
# "lea point m arobase example point org", "lea [at] example.org": a sign in brackets, or a word that has no other use,
# makes an address of it. After others ("at", Turkish "et") a spelled dot must follow.
SPELLED_AT = re.compile(
    r"[ \u00a0]{0,2}(?P<sure>[\[({<](?:at|ät|arroba|arobase|собака|chiocciola|@)[\])}>])[ \u00a0]{0,2}"
    r"| (?:(?P<word>arobase|arobas|arroba|chiocciola|собака|klammeraffe)|(?P<doubtful>at|ät|et)) ",
    re.IGNORECASE,
)
DOT = "(?:dot|point|punkt|punto|ponto|nokta|точка)"
SPELLED_DOT = rf"(?:[ ]?[\[({{](?:{DOT}|\.)[\])}}][ ]?| {DOT} )"
SPELLED_MAILBOX = re.compile(
    rf"(?<![\w.@])[\w+-]{{1,40}}(?:(?:\.|{SPELLED_DOT})[\w+-]{{1,40}}){{0,3}}\Z", re.IGNORECASE
)
SPELLED_DOMAIN = re.compile(
    rf"[\w-]{{1,40}}(?:(\.|{SPELLED_DOT})[\w-]{{1,40}}){{0,2}}(\.|{SPELLED_DOT})"
    r"(?:com|org|net|info|[a-z]{2}|рф)(?![\w-])",
    re.IGNORECASE,
)
# India's payment addresses have a bank where an e-mail address has a domain.
UPI = re.compile(
    r"@(?:ok(?:axis|icici|hdfcbank|sbi)|ybl|ibl|axl|upi|paytm|pt(?:axis|hdfc|sbi|yes)|apl|yapl|rapl|fbl|jupiteraxis|sbi|icici"
    r"|hdfcbank|axisbank|kotak|airtel|freecharge|ikwik)(?![\w.-]*\w)",
    re.IGNORECASE,
)
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
SOCIAL = re.compile(r"\b(?:ssn|social)\b(?!\.\w| (?:media|network|post|club|page|event))", re.IGNORECASE)
IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d|-[^\W\d])")
IP6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?!\w)")
FOUR_DECIMALS = re.compile(r"\.[0-9]{4}")
COORDINATES = re.compile(r"(?<![\w.,])(-?\d{1,2}\.\d{4,})(?:[,;] ?| )(-?\d{1,3}\.\d{4,})(?!\.?\w)")
DEGREES = re.compile(
    r"(?<!\w)\d{1,2}°[ ]?\d{1,2}(?:\.\d{1,6})?['′’][ ]?(?:\d{1,2}(?:[.,]\d{1,4})?[\"″”]?[ ]?)?[NS][ ,;]{0,3}"
    r"\d{1,3}°[ ]?\d{1,2}(?:\.\d{1,6})?['′’][ ]?(?:\d{1,2}(?:[.,]\d{1,4})?[\"″”]?[ ]?)?[EWO](?!\w)"
)
PLACE_BEFORE = re.compile(
    r"\b(?:gps|coord\w*|geo|lat\w*|position|posizione|posición|posição|standort|konum)\b\W*\Z|[@=]\Z", re.I
)
VERSION = re.compile(
    r"\b(?:version|ver|v|build|release|firmware|bios|(?:mac|ipad|watch|i)os|android|driver|maj|upgraded? to"
    r"|updated? to)\W{0,2}\Z",
    re.IGNORECASE,
)
# Around four numbers, signs of an address, or of an amount such as 1.200.100.250 €.
ADDRESS_BEFORE = re.compile(r"(?:\b(?:ip|ping|ssh|host|serv\w+|addr\w+)\b\W*(?:\w+\W+)?|[@/])\Z", re.IGNORECASE)
ADDRESS_AFTER = re.compile(r"[:/]\d")
AMOUNT_BEFORE = re.compile(r"(?:[$€£¥₫₱]|\bRp\.?) ?\Z")
AMOUNT_AFTER = re.compile(
    r"[ \u00a0\u202f]?(?:[$€£¥₫₱]|(?:eur|euros?|usd|pesos?|rupiah|fcfa)\b)|,\d\d(?![\d.])", re.IGNORECASE
)


def find(text: str, regions: Sequence[str] = DEFAULT_REGIONS) -> list[Detection]:
    """All personal data in a text, in order. Of overlapping detections keep a secret, or else the longest."""
    is_rare = any(word in text for word in RARE)
    return _look(text, regions, is_rare) if is_rare or HINT.search(text) else []


def _look(text: str, regions: Sequence[str], is_rare: bool) -> list[Detection]:
    if len(text) < SHORTEST:
        return []
    found: list[Detection] = []
    if len(text) >= SHORTEST_SPELLED and (is_rare or "[" in text or "(" in text):
        found += _all("email", spelled_emails(text))
    if "@" in text:
        found += _all("email", emails(text))
        found += _all("account", upi_ids(text))
        found += _all("secret", (match.span(1) for match in USER_AND_PASSWORD.finditer(text)))
    if "=" in text:
        found += _all("secret", (match.span(1) for match in SECRET_PARAMETER.finditer(text)))
    if "/" in text:
        found += _all("secret", (match.span(match.lastindex or 0) for match in SECRET_LINK.finditer(text)))
    if SIXTEEN.search(text):
        found += _all("key", (match.span() for match in KEY.finditer(text)))
    if "PRIVATE KEY-----" in text:
        found += _all("key", private_keys(text))
    found += (Detection(start, end, kind) for kind, (start, end) in named_values(text))
    if ID_HINT.search(text):
        western = text if text.isascii() else text.translate(WESTERN)
        found += _numbers(western, regions)
        if "\n" in western and LINE_BREAK_IN_NUMBER.search(western):
            found += _numbers(LINE_BREAK_IN_NUMBER.sub(" ", western), regions)
    if FOUR_DECIMALS.search(text) or "°" in text:
        found += _all("location", locations(text))
    if text.count(".") > 2 or text.count(":") > 1:
        found += _all("ip", addresses(text))
    return _without_overlaps(found, len(text)) if len(found) > 1 else found


def _numbers(text: str, regions: Sequence[str]) -> Iterator[Detection]:
    yield from _all("id", ids_of_countries(text, regions))
    if "+" in text or NINE_DIGITS.search(text):
        yield from _all("iban", ibans(text))
        yield from _all("card", cards(text))
        yield from _all("id", national_ids(text))
        yield from _all("phone", phones(text, regions))


def _all(kind: str, spans: Iterator[Span]) -> list[Detection]:
    return [Detection(start, end, kind) for start, end in spans]


def _without_overlaps(found: list[Detection], length: int) -> list[Detection]:
    """Prefer secrets, since a password's @ and what follows look like an e-mail address; then the longest, then the
    first in KINDS."""
    kept: list[Detection] = []
    taken = bytearray(length)
    for one in sorted(found, key=lambda one: (one.kind != "secret", one.start - one.end, KINDS.index(one.kind))):
        if 1 not in taken[one.start : one.end]:
            taken[one.start : one.end] = b"\x01" * (one.end - one.start)
            kept.append(one)
    return sorted(kept)


def private_keys(text: str) -> Iterator[Span]:
    """PEM blocks. One that is never closed goes on to the end of the text."""
    end = 0
    for begin in PEM_BEGIN.finditer(text):
        if begin.start() >= end:
            limit = begin.end() + LONGEST_KEY
            closing = PEM_END.search(text, begin.end(), limit)
            if closing or limit >= len(text):
                end = closing.end() if closing else len(text)
                yield begin.start(), end


def emails(text: str) -> Iterator[Span]:
    """Search from each @ outwards; searching for a mailbox first would take quadratic time on a long word."""
    at = text.find("@")
    while at != -1:
        domain = DOMAIN.match(text, at + 1)
        mailbox = MAILBOX.search(text[max(0, at - 64) : at]) if domain else None
        if mailbox and domain and (name := mailbox[0].lstrip("'’.-+%")):
            yield at - len(name), domain.end()
        at = text.find("@", at + 1)


def spelled_emails(text: str) -> Iterator[Span]:
    for at in SPELLED_AT.finditer(text):
        domain = SPELLED_DOMAIN.match(text, at.end())
        mailbox = SPELLED_MAILBOX.search(text, max(0, at.start() - 80), at.start()) if domain else None
        if mailbox is None or domain is None or len(mailbox[0]) < 2 or mailbox[0].isdigit():
            continue
        if at["doubtful"]:  # not "look at bikes dot com"
            begins = not mailbox.start() and "dot" not in domain[2].lower()
            is_led_to = begins or text[: mailbox.start()].rstrip()[-1:] == ":"
            if domain[2] == "." or (mailbox[0].isalpha() and not is_led_to):
                continue
        yield mailbox.start(), domain.end()


def upi_ids(text: str) -> Iterator[Span]:
    for match in UPI.finditer(text):
        mailbox = MAILBOX.search(text, max(0, match.start() - 64), match.start())
        if mailbox and (name := mailbox[0].lstrip("'’.-+%")):
            yield match.start() - len(name), match.end()


def locations(text: str) -> Iterator[Span]:
    """Coordinates. With four decimals, two numbers are coordinates only if one is negative, if they are all of the
    message and not near the equator, or behind a word or a link that says so; five decimals are enough."""
    for match in COORDINATES.finditer(text):
        latitude, longitude = match[1], match[2]
        is_sure = (
            max(len(each.partition(".")[2]) for each in (latitude, longitude)) > 4
            or "-" in latitude + longitude
            or (match[0] == text.strip() and abs(float(latitude)) > 9)
            or PLACE_BEFORE.search(text, max(0, match.start() - CONTEXT), match.start())
        )
        if is_sure and abs(float(latitude)) <= 90 and abs(float(longitude)) <= 180:
            yield match.span()
    yield from (match.span() for match in DEGREES.finditer(text))


def ibans(text: str) -> Iterator[Span]:
    """Try every end of a candidate: the IBANs of a country have one length, and the next word may follow."""
    for match in IBAN.finditer(text):
        ends = [index for index in range(match.start() + 15, match.end(1) + 1) if not text[index : index + 1].isalnum()]
        for end in ends:
            number = re.sub(GAP, "", text[match.start() : end]).upper()
            # Check the check digits first, at a tenth of the cost: any word of four letters may start a candidate.
            if int("".join(WEIGHTS[letter] for letter in number[4:] + number[:4])) % 97 == 1 and iban.is_valid(
                number, check_country=False
            ):
                yield match.start(), end
                break


def cards(text: str) -> Iterator[Span]:
    last = None  # where the card before ends
    for match in CARD.finditer(text):
        start, end = match.span(1)
        if luhn.is_valid(re.sub(GAP, "", match[1])) and (
            start - 1 == last or not _is_other_id(text, start, end, CARD_WORD)
        ):
            yield start, end
            last = end


def national_ids(text: str) -> Iterator[Span]:
    """French NIRs by their key. A US number has no check digit, so require its dashes or a word that names it."""
    last = None
    for match in NIR.finditer(text):
        start, end = match.span()
        is_grouped = not match[0].isdigit()  # no other number has these groups
        if nir.is_valid(re.sub(GAP, "", match[0])) and (
            is_grouped or start - 1 == last or not _is_other_id(text, start, end, NIR_WORD)
        ):
            yield start, end
            last = end
    for match in SSN.finditer(text):
        start, end = match.span()
        is_ours = SOCIAL.search(text, max(0, start - 40), start) or (
            "-" in match[0] and (start - 1 == last or not _is_other_id(text, start, end, SOCIAL))
        )
        if is_ours and ssn.is_valid(re.sub(GAP, "", match[0])):
            yield start, end
            last = end


def ids_of_countries(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """The numbers of IDS: in any region behind a word that names them, elsewhere those of the given regions.

    One of digits alone needs such a word, or 13 digits: of any eleven digits, one in a hundred has the check digits of
    a CPF. The punctuation of its country counts as a word, as do letters in it.
    """
    for match in ID_TOKEN.finditer(text):
        start, end = match.span()
        if end - start < SHORTEST_ID:
            continue
        words = A_WORD.findall(text[max(0, start - CONTEXT) : start].lower())[-4:]
        named = [one for word in words if word in ID_WORDS for one in _ids(word)]
        while end > start:
            value = text[start:end]
            if sum(map(str.isdigit, value)) < 4:
                break
            if any(one.is_valid(value) for one in named) or _is_id(text, start, value, tuple(regions)):
                yield start, end
                break
            end = start + max(value.rfind(" "), 0)  # without the last group of digits


def _is_id(text: str, start: int, value: str, regions: tuple[str, ...]) -> bool:
    is_bare = value.isdigit()
    if is_bare and len(value) < 13:
        return False
    has_letters = any(map(str.isalpha, value))
    return any(
        one.is_valid(value) and (is_bare or has_letters or _is_punctuated(value, one)) for one in _ids("", regions)
    ) and not _is_other_id(text, start, start + len(value), NO_WORD)


def _is_punctuated(value: str, module: ModuleType) -> bool:
    return hasattr(module, "format") and module.format(value) == value


@cache
def _ids(word: str = "", regions: tuple[str, ...] = ()) -> tuple[ModuleType, ...]:
    """The modules of the numbers that a word names, or of regions."""
    return tuple(import_module(f"stdnum.{one.module}") for one in IDS if word in one.words or one.region in regions)


def _is_other_id(text: str, start: int, end: int, own: re.Pattern[str]) -> bool:
    """Whether digits are part of a decimal, a link or a file name, or the number of an order, a parcel or a post.

    own  words that confirm, before the digits, that they are what they look like
    """
    before = max(0, start - CONTEXT)
    if own.search(text, before, start):
        return False
    is_grouped = not text[start:end].isdigit()
    return any(
        (
            ID_PART_BEFORE.search(text, max(0, start - 2), start),
            is_grouped and GROUP_BEFORE.search(text, max(0, start - 4), start),
            ID_PART_AFTER.match(text, end),
            PATH.search(_word_before(text, start)),
            OTHER_NUMBER.search(text, before, start),
            POST_WORD.search(text, before, start),
        )
    )


def addresses(text: str) -> Iterator[Span]:
    """IP addresses, but not four single digits: those are a version or a public resolver (1.1.1.1)."""
    for match in IP4.finditer(text):
        start, end = match.span()
        before = text[max(0, start - CONTEXT) : start]
        if (
            len(match[0]) > len("1.1.1.1")
            and not VERSION.search(before)
            and not AMOUNT_BEFORE.search(before)
            and not AMOUNT_AFTER.match(text, end)
        ):
            named = ADDRESS_BEFORE.search(before) or ADDRESS_AFTER.match(text, end)
            yield from _address(match[0], match.span(), bool(named))
    for match in IP6.finditer(text):
        value = match[0] if match[0].endswith("::") else match[0].rstrip(":")
        if any(len(group) == 4 for group in value.split(":")):  # not 1::2, a::b or 10:20:30
            yield from _address(value, (match.start(), match.start() + len(value)), True)


def _address(value: str, span: Span, named: bool) -> Iterator[Span]:
    try:
        address = ip_address(value)
    except ValueError:
        return
    if address.is_loopback or address.is_unspecified:
        return
    if isinstance(address, IPv4Address):
        parts = address.packed
        if parts[0] in (0, 255) or address.is_multicast or address.is_reserved:  # masks, multicast, broadcast
            return
        # 3.14.15.92, 8.96.0.207: 2.8% of public addresses look like it, as most versions do.
        if not named and address.is_global and (max(parts) < 100 or (parts[0] < 32 and 0 in parts)):
            return
    yield span


NEAR = 512  # characters around a change that are searched again
LONGEST_CONTEXT = 256  # characters before a value that the recognisers look at


class Masker:
    """Replaces personal data with its kind and counts the replacements. Use one for each extraction.

    regions  countries (ISO 3166 alpha-2) whose national phone numbers are recognised; `regions_of` infers them
    counts   replacements by kind, one of KINDS; values are not kept
    """

    def __init__(self, regions: Sequence[str] = DEFAULT_REGIONS) -> None:
        self.regions = regions
        self.counts: Counter[str] = Counter()

    def mask_all(self, texts: Sequence[str]) -> list[str]:
        """`mask` for each text. Most hold none of RARE, which is faster to ask of several together."""
        masked: list[str] = []
        for start in range(0, len(texts), TOGETHER):
            some = texts[start : start + TOGETHER]
            joined = "\n".join(some)
            rare = [word for word in RARE if word in joined]
            for text in some:
                is_rare = bool(rare) and any(word in text for word in rare)
                if is_rare or HINT.search(text):
                    masked.append(self._replace(text, _look(text, self.regions, is_rare)))
                else:
                    masked.append(text)
        return masked

    def mask(self, text: str) -> str:
        """Replace all personal data with its kind in brackets. Returns the same object when there is none."""
        return self._replace(text, find(text, self.regions))

    def _replace(self, text: str, found: list[Detection]) -> str:
        # Repeat until nothing is found: a word in brackets can change how the digits after it are read.
        while found:
            pieces: list[str] = []
            places: list[int] = []  # where the new words in brackets end
            end = length = 0
            for one in found:
                word = f"[{one.kind}]"
                pieces += text[end : one.start], word
                length += one.start - end + len(word)
                places.append(length)
                end = one.end
                self.counts[one.kind] += 1
            text = "".join(pieces) + text[end:]
            found = self._find_near(text, places)
        return text

    def _find_near(self, text: str, places: Sequence[int]) -> list[Detection]:
        """What can be found near places that have changed. To search all of a long text again for each number in it
        would take quadratic time."""
        windows: list[list[int]] = []
        for place in places:
            if windows and place - NEAR <= windows[-1][1]:
                windows[-1][1] = place + NEAR
            else:
                windows.append([max(0, place - NEAR), place + NEAR])
        found: list[Detection] = []
        searched = 0
        for start, stop in windows:
            here = find(text[start:stop], self.regions)
            while here and stop < len(text) and here[-1].end > stop - start - LONGEST_CONTEXT:  # it may go on
                stop += 8 * NEAR
                here = find(text[start:stop], self.regions)
            first = max(searched, start + LONGEST_CONTEXT if start else 0)
            found += (
                Detection(start + one.start, start + one.end, one.kind) for one in here if start + one.start >= first
            )
            searched = stop
        return found


# Phone numbers. libphonenumber takes about 30 µs for one, so patterns choose what to ask it. Numbers with a country
# code are recognised everywhere. National numbers are tried in a few regions only, in the form in which people there
# write them, from nine digits up.
MARKS = "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks; WhatsApp wraps numbers and names in them
PHONE_GAP = r"[ \u00a0\u202f./()\-\u2010-\u2013]"
WITH_COUNTRY_CODE = re.compile(rf"(\(?\+|00)(?:{PHONE_GAP}{{0,2}}\d){{7,15}}(?!\d)")
INTERNATIONAL = re.compile(rf"(?<![\d+]){WITH_COUNTRY_CODE.pattern}")
NATIONAL = re.compile(rf"(?<![\d+])\(?0[1-9](?:{PHONE_GAP}{{0,2}}\d){{7,18}}(?!\d)")
# In France a 0 and nine more digits are always a number. Do not ask libphonenumber: its metadata lacks new blocks and
# those reserved for fiction (06 39 98). Require pairs, since dates have other groups.
FRENCH = re.compile(r"0[1-9]([ .\-\u00a0\u202f/]?)\d\d(?:\1\d\d){3}(?!\d)")
GROUP_BEFORE = re.compile(r"\d{3}[ .\-]$")  # inside a longer number, such as a company's
PAIRS = re.compile(r"(?:[ .\-\u00a0\u202f/]\d\d(?!\w|:)){1,5}")
NORTH_AMERICAN = re.compile(
    r"(?<![\d+/])(?<!\d[.,:-])(?:1[ .-]?)?"
    r"(?:\([2-9]\d\d\)[ ]?|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}(?![-.,]?\d)"
    r"|(?<![\d+])(?<!\d[.,:-])[2-9]\d\d[2-9]\d{6}(?![-.,:]?\d)"
)
OPEN = re.compile(rf"(?<![\d+])\(?[1-9](?:{PHONE_GAP}{{0,2}}\d){{8,11}}(?!\d)")  # without a leading 0
OTHER_SHAPE = re.compile(  # dates, years, sums, IP addresses
    r"(?:[0-2]\d|3[01])([./-])(?:[0-2]\d|3[01])\1(?:\d{4}|\d\d)(?![./-]?\d)|(?:19|20)\d\d([./-])\d\d\2\d\d(?!\d)"
    r"|(?:19|20)\d\d(?:[ .-]{1,3}(?:19|20)\d\d)+(?!\d)|\d{1,3}(?:[ .]000){2,}|(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)"
)
DECIMALS = re.compile(r"\.\d")
THREE_DIGITS = re.compile(r"\d{3}")
PART_BEFORE = re.compile(r"\d[.,:/]$")  # inside a decimal, a date or a time
LINKED = re.compile(r"(?:wa\.me/|[?&]phone=)\+?([1-9]\d{7,14})(?!\d)")
EXTENSION = re.compile(r"x\d{1,5}(?!\w)")
LETTERS = re.compile(r"[^\W\d_]*")
# Words before a number that make it another kind of number.
OTHER_NUMBER = re.compile(
    r"(?:#|\b(?:order|ref|reference|booking|confirmation|invoice|ticket|case|track\w*|serial|member|meeting|zoom|wi-?fi"
    r"|passw\w+|pw|imei|isbn|id|code|account|commande|dossier|facture|réf\w*|suivi|colis\w*|client|adhérent|série|siret"
    r"|compte|loto|powerball|pedido|encomenda|protocolo|processo|expediente|ordine|pratica|spedizione|bestell\w*|auftrag\w*"
    r"|rechnung\w*|sipariş|fatura|kargo|заказ\w*|сч[её]т\w*|трек\w*|pesanan|resi|order\w*|comand[aă]|παραγγελία))\b\W*"
    r"(?:\w+\W+){0,2}$|(?:订单|訂單|주문|単号)[^\W\d]{0,4}\W*$",
    re.IGNORECASE,
)
CONTEXT = 32  # characters before a number in which such a word may stand
# Around digits, signs that they are no card and no id.
PATH = re.compile(r"://|www\.|(?:^|[^\W\d])/")
ID_PART_BEFORE = re.compile(r"(?:\d[.,:/-]|(?<![^\s=(])\.|[_#@=&]|[^\W\d]-?)\Z")
ID_PART_AFTER = re.compile(r"[_&]|[A-Z]{2}(?!\w)|/[^\W\d]")
POST_WORD = re.compile(r"\b(?:posts?|tweet|status|groupe?s?|parcel)\b\W*(?:\w+\W+){0,2}\Z", re.IGNORECASE)
# Before digits, words that confirm a card or an id.
CARD_WORD = re.compile(
    r"(?<!\[)\b(?:cards?|cartes?|cb|visa|mastercard|mc|amex|credit|debit|pay\w{0,5})(?![^\W\d])", re.IGNORECASE
)
NIR_WORD = re.compile(r"\b(?:s[ée]cu|nir|ss|insee|s[ée]curité sociale)\b", re.IGNORECASE)


def regions_of(names: Iterable[str], languages: Iterable[str] = ()) -> tuple[str, ...]:
    """The regions (ISO 3166 alpha-2) whose national numbers to recognise in a run.

    First the regions of numbers with a country code among `names` (senders and titles), most frequent first; then those
    of the `languages` (ISO 639-1); then the defaults. A number that fits several belongs to the first.
    """
    counts: Counter[str] = Counter()
    for name in names:
        number = _parsed(plain(name), None) if "+" in name else None
        region = region_code_for_number(number) if number else None
        if region:
            counts[region] += 1
    spoken = (region for language in languages for region in REGIONS_OF_LANGUAGES.get(language, ()))
    return tuple(dict.fromkeys([*(region for region, _ in counts.most_common()), *spoken, *DEFAULT_REGIONS]))


def plain(name: str) -> str:
    """A name without direction marks and without the tilde that WhatsApp puts before people not in the contacts."""
    return re.sub(f"[{MARKS}]", "", name).strip().lstrip("~").strip()


def canonical(text: str, regions: Sequence[str]) -> str | None:
    """A phone number in E.164, or its digits if it is valid in no region; None if the text is anything else.

    Up to six digits are the short code of a service, not a person's number.
    """
    text = plain(text)
    digits = "".join(character for character in text if character.isdigit())
    if len(digits) < 7 or not re.fullmatch(rf"\+?(?:{PHONE_GAP}*\d)+", text):
        return None
    # A mention has the country code without the plus, hence the last try.
    for spelling, region in ((text, None), *((text, region) for region in regions), (f"+{digits}", None)):
        number = _parsed(spelling, region)
        if number and (is_valid_number(number) or (spelling.startswith("+") and is_possible_number(number))):
            return str(format_number(number, PhoneNumberFormat.E164))
    return digits


def phones(text: str, regions: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Spans of phone numbers; they may overlap."""
    for match in LINKED.finditer(text):
        if _is_possible(f"+{match[1]}"):
            yield match.span(1)
    place, last = 0, -1
    # Directly behind a number, the plus of the next one may follow a digit.
    while found := (place == last and WITH_COUNTRY_CODE.match(text, place)) or INTERNATIONAL.search(text, place):
        place = found.end()
        if end := _end(text, *found.span(), [None] if found[1] != "00" else ["FR"]):
            yield _inside(text, found.start(), end)
            place = last = end
    plans = _plans(tuple(regions))
    yield from _national(text, NATIONAL, lambda match, follows: _national_end(match, follows, plans.trunk))
    if plans.north_american:
        for match in NORTH_AMERICAN.finditer(text):
            if not _is_other(text, match.start()) and not _is_code(text, match.end()) and _is_american(match):
                yield match.span()
    if plans.without:
        yield from _national(text, OPEN, lambda match, _: _open_end(match, plans.without))


def international_end(text: str, start: int) -> int | None:
    """The end of the number with a country code that starts here, or None."""
    match = INTERNATIONAL.match(text, start)
    return _end(text, start, match.end(), [None]) if match else None


class _Plans(NamedTuple):
    """Regions by how people there write national numbers: after a 0, as in North America, or without a prefix."""

    trunk: tuple[str, ...]
    north_american: bool
    without: tuple[str, ...]


@cache
def _plans(regions: tuple[str, ...]) -> _Plans:
    american = {region for region in regions if country_code_for_region(region) == 1}
    others = [region for region in regions if region not in american]
    trunk = tuple(region for region in others if ndd_prefix_for_region(region, True) == "0")
    return _Plans(trunk, bool(american), tuple(region for region in others if _is_dialled_without_0(region)))


def _is_dialled_without_0(region: str) -> bool:
    """Whether people write national numbers there without a leading 0, at least those of mobiles."""
    metadata = PhoneMetadata.metadata_for_region(region)
    mobile = example_number_for_type(region, PhoneNumberType.MOBILE)
    if metadata is None or mobile is None or ndd_prefix_for_region(region, True) != "0":
        return True
    is_optional = any(each.national_prefix_optional_when_formatting for each in metadata.number_format)
    return is_optional or not format_number(mobile, PhoneNumberFormat.NATIONAL).startswith("0")


def _national(
    text: str, shape: re.Pattern[str], end_of: Callable[[re.Match[str], bool], int | None]
) -> Iterator[tuple[int, int]]:
    """National numbers that match a pattern.

    Digits or punctuation before a match can make it part of something else, but not if they are a number themselves:
    so every number of a list is found in one pass, whatever separates them.

    end_of  gives the end of the number in a match, or None; its second argument says whether a number directly precedes
    """
    position, last = 0, -1
    while match := shape.search(text, position):
        start, position = match.start(), match.end()
        follows = start - 1 == last
        if not follows and PART_BEFORE.search(text, max(0, start - 2), start):
            position = start + 1  # the 05 of 14:05 06 12 34 56 78
            continue
        if other := OTHER_SHAPE.match(text, start):
            position = other.end()
            continue
        if _is_other(text, start):
            continue
        end = end_of(match, follows)
        if end and not _is_code(text, end):
            yield _inside(text, start, end)
            position = last = end


def _open_end(match: re.Match[str], regions: Sequence[str]) -> int | None:
    """The end of a number without a leading 0. Without a group of three digits it is a score: 25-19 22-25 25-21."""
    text, start = match.string, match.start()
    end = _end(text, *match.span(), regions)
    if end is None or sum(map(str.isdigit, text[start:end])) < 9 or not THREE_DIGITS.search(text, start, end):
        return None
    return None if DECIMALS.match(text, end) else end


def _national_end(match: re.Match[str], follows: bool, regions: Sequence[str]) -> int | None:
    text, start = match.string, match.start()
    if "FR" in regions and (french := FRENCH.match(text, start)):
        return None if _is_list(text, start, french.end()) else french.end()
    if not follows and GROUP_BEFORE.search(text, max(0, start - 4), start):
        return None
    end = _end(text, *match.span(), regions)
    return None if end and _is_list(text, start, end) else end


def _inside(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without an opening bracket that closes after the number, or never."""
    return (start + 1 if text[start] == "(" and ")" not in text[start:end] else start), end


def _is_list(text: str, start: int, end: int) -> bool:
    """Whether a few more pairs follow, as in a lottery draw; five or more are the next number."""
    more = PAIRS.match(text, end)
    return more is not None and len(more[0]) < len(" 06 39 98 00 00") and FRENCH.fullmatch(text, start, end) is not None


def _end(text: str, start: int, end: int, regions: Sequence[str | None]) -> int | None:
    """The end of the longest valid number that starts here; more groups of digits may follow it.

    After a plus, a possible length is enough if nothing is valid, since only phone numbers are written so.
    """
    ends: list[int] = []
    while end > start and len(ends) < 5:
        ends.append(end)
        while end > start and text[end - 1].isdigit():
            end -= 1
        while end > start and not text[end - 1].isdigit():
            end -= 1
    for end in ends:
        if any(_is_number(text[start:end], region) for region in regions):
            return end
    return next((end for end in ends if None in regions and _is_possible(text[start:end])), None)


def _is_number(text: str, region: str | None) -> bool:
    number = _parsed(text.lstrip("("), region)
    return number is not None and bool(is_valid_number(number))


def _is_possible(text: str) -> bool:
    """Whether the length is possible. Refuses "+1000000000": points, not a number."""
    number = _parsed(text.lstrip("("), None)
    digits = str(number.national_number) if number else ""
    return len(digits) > 6 and len(set(digits)) > 2 and bool(number and is_possible_number(number))


def _is_american(match: re.Match[str]) -> bool:
    """Accept (741) 354-9909 and 883.423.6405 by their form, even if the area code is not in use."""
    return any(mark in match[0] for mark in "(.-") or _is_number(match[0], "US")


def _parsed(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return parse(text, region)
    except NumberParseException:
        return None


def _is_other(text: str, start: int) -> bool:
    """Whether the text before says that this is no phone number: letters of a code, a link, a word such as order."""
    glued = LETTERS.match(text[max(0, start - CONTEXT) : start][::-1])
    letters = glued[0] if glued else ""
    is_word = (len(letters) > 2 and letters[:2].islower()) or letters.upper() == letters.lower()
    if not is_word or (start and text[start - 1] in "_#@=&"):
        return True
    word = _word_before(text, start)
    return "://" in word or "www." in word or OTHER_NUMBER.search(text, max(0, start - CONTEXT), start) is not None


def _word_before(text: str, start: int) -> str:
    """The beginning of the word that continues at `start`, such as a link."""
    before = text[max(0, start - 200) : start]
    return before[max(before.rfind(" "), before.rfind("\n")) + 1 :]


def _is_code(text: str, end: int) -> bool:
    """Whether one or two letters follow directly, as in 0123456789FR. More are a word after a missing space, and x204
    is an extension."""
    glued = LETTERS.match(text, end, end + 3)
    return glued is not None and 0 < len(glued[0]) < 3 and not EXTENSION.match(text, end)


KINDS = ("key", "secret", "email", "iban", "card", "id", "account", "ip", "phone", "location")
