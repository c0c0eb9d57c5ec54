"""Find values that only the word before them makes personal: passwords, codes and account names (`mdp: …`, `OTP …`,
`snap: …`), in many languages.

Most sentences with such a word hold no value ("the password is wrong", "zip code 90210"), so a value must also look
like one. After a colon, or a verb such as "is", a plainer one counts.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

Span = tuple[int, int]

# Regular expressions, each beginning with a letter; `re` skips to the next of these letters at once.
PASSWORD = (
    "passwor[dt]s?, passwd, psw, passcode, passphrase, pass, pwd?, mdp, mots? de passe, kennwort, contrase[ñn]a"
    ", la contra, clave, senha, palavra[- ]passe, parola, şifre(?:si|niz|m|n)?, sifre(?:si|niz|m|n)?, парол[ьяе]"
    ", lösenord(?:et)?, kata sandi, sandi, wachtwoord, has[łl]o, jelszó, heslo, salasana, κωδικός, 비밀번호, 비번"
    ", 密码, 密碼, पासवर्ड, wi-?fi, wlan, вай-?фа[йя]"
)
CODE = (
    "codes?, c[óo]digo, codice, kod(?:unuz|um|un|u)?, код, pin ?code, pin, пин-?код, пин, otp, tan, digicode, türcode,"
    " torcode, bestätigungscode, buzzer, lockbox, keybox, interphone, 验证码, 인증번호"
)
CARD_CODE = (
    "cvv2?, cvc2?, cryptogramme, prüfziffer, security code, sicherheitscode, code de sécurité, c[óo]digo de segur\\w+"
    ", codice di sicurezza, güvenlik kodu"
)
ACCOUNT = "snapchat, snap, instagram, instam, insta, ig, telegram, tiktok, снэп, инста"


def _any_of(*lists: str) -> str:
    """A pattern that tries only the words with the letter at hand: five times as fast as a list of alternatives."""
    by_letter: dict[str, list[str]] = {}
    for word in ", ".join(lists).split(", "):
        by_letter.setdefault(word[0], []).append(word[1:])
    return "|".join(f"{letter}(?:{'|'.join(rest)})" for letter, rest in by_letter.items())


NAMED = re.compile(_any_of(CARD_CODE, PASSWORD, CODE, ACCOUNT))

# Verbs that lead to a value as a colon does.
IS = frozenset(["is", "c'est", "c’est", "est", "ist", "lautet", "es", "é", "è", "jest", "är", "είναι"])
FARTHEST = 6  # words between the word and its value
TOKEN = re.compile(
    r"(?: [-–—](?= ))?[ \u00a0]{0,2}(?:([:：=→]|[-=]>)[ \u00a0]{0,3}\n?)?"
    r"(\(?[^\W\d_]+(?:['’-][^\W\d_]*)*\)?(?=[ \u00a0:：=])|[^\s,;]{1,80})"
)
COMPOUND = re.compile(r"-[^\W\d_]{1,24}(?=[ \u00a0:：=])")  # WLAN-Schlüssel
WORD = re.compile(r"\(?[^\W\d_]+(?:['’-][^\W\d_]*)*\)?")
QUOTED = re.compile(r"[\"«“‘`*]([^\"»”’`*\n]{4,40})[\"»”’`*]")
OPENING, CLOSING = "\"'«“‘(*`", "\"'»”’).,;:!?*`"
REST_OF_LINE = re.compile(r"[^\w\n]*(?:[(\n]|\Z)")

LETTER_AND_DIGIT = re.compile(r"(?=.*\d).*[^\W\d_]")
QUANTITY = re.compile(r"\d+(?:[.,:/hx-]\d+)*[^\W\d]{0,4}(?:/\w+)?")  # 22h30, 40mbps, 3rd
MARK_INSIDE = re.compile(r"\w[!#$%&*+_@?]+\w")
CAPITAL_INSIDE = re.compile(r"[^\W\d_]*[a-zß-ÿа-я][A-ZÀ-ÞА-Я]")
LETTERS = re.compile(r"[^\W\d_]+(?:[.-][^\W\d_]+)*")
NO_VALUE = re.compile(r"[\[\]⟦⟧]|://|\Awww\.|\w@[\w-]+\.\w")  # masked already, a link, an address
DIGIT_CODE = re.compile(
    r"[#*]?(?:\d{4,8}|\d{2,4}([ -])\d{2,4}(?:\1\d{2,4})?|(?=[^\W_]{0,7}\d[^\W_]{0,6}\d)[^\W_]{4,8})[#*]?"
    r"(?![\w%€$£]|[.,:/ -]?\d| ?[€$£%])"
)
SHORT_CODE = re.compile(r"\d{3,4}(?![\w%€$£]|[.,:/-]\d)")
UNIT = re.compile(
    r" ?(?:[ckm]?m|[km]?g|[cm]?l|k?cal\w*|[km]?w|v|[gmk][bo]|mah|tl|lei|eur\w*|usd|руб\w*|г(?:од\w*)?|lines?|lignes?"
    r"|zeilen|l[ií]n[eh]as|righe|satır|строк\w*)\b",
    re.IGNORECASE,
)
YEAR = re.compile(r"(?:19|20)\d\d")
HANDLE = re.compile(r"(@?)((?=[\w.]*[^\W\d_])[\w.]{2,29}\w)")
# What a code opens or confirms. Without one of these, a colon or a verb, a code must follow its word directly.
OPENS = re.compile(
    r"(?<!\w)(?:door|gate|buil\w+|entr\w+|lock\w*|box|safe|alarm\w*|garage|porte|portail|immeuble|bâtiment|clés?"
    r"|coffre|hall|portal|puerta|edificio|casa|porta|portão|prédio|cancello|portone|citofono|kapı|bina|apartman|onay"
    r"|allarme|carte|carta|card|karte|kart\w*|tarjeta|bancomat|bank\w*|банк\w*|карт\w*|двер\w+|домофон\w*|подъезд\w*"
    r"|смс|подтвержд\w+|tor|haus|sms|verif\w+|vérif\w+|confirm\w+|otp|digicode|buzzer|\w+code)(?!\w)",
    re.IGNORECASE,
)
# Words beside "code" that make it another: of a place, a price, a program, a product or a law.
OTHER_CODE = re.compile(
    r"(?<!\w)(?:zip|plz|post\w*|country|area|dial\w*|alan|города|promo\w*|discount|coupon|sconto|indirim|desc\w+"
    r"|remise|exit|err[eo]\w+|hata|ошибк\w*|status|http|source|dress|qr|bar\w*|produ\w+|item|article|civil|p[ée]nal"
    r"|route|strada|morse|naf|swift|sort|tax|impôt|referral|parrain\w*|affili\w*|course|cours|curso|corso|kurs|ders"
    r"|module|client\w*|kund\w*|cust\w*|réduc\w*|flight|vol|volo|voo|vuelo|flug|uçuş|рейса|reserv\w*|réserv\w*"
    r"|prenot\w*|buchung\w*|rezerv\w*|booking|cupo\w*|gutschein|ürün|prodott\w*|товара|colou?r|couleur|штрих)(?!\w)",
    re.IGNORECASE,
)
# "482913 is your code": what comes before the word, as services write it.
CODE_BEFORE = re.compile(
    r"(?<![\w.,-])(?:[A-Z]-)?(\d{4,8}|\d{3}[ -]\d{3}) (?:is|est|ist|es|é|è) (?:your|the|votre|ton|dein|ihr|tu|su|seu)\b"
    r"[^\n\d]*\Z",
    re.IGNORECASE,
)
FAR = 64  # characters before a word in which its value may stand
LINK = frozenset("/?&#_.")  # characters beside a word in a link or a file's name
BEFORE = 16  # characters before a word in which another may stand that changes its meaning


def named_values(text: str) -> Iterator[tuple[str, Span]]:
    """The kind, "secret" or "account", and the span of each value. Takes linear time."""
    lowered = text.lower()
    if len(lowered) != len(text):  # İ in lower case is two characters
        lowered = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
    for match in NAMED.finditer(lowered):
        start, end = match.span()
        before, after = lowered[start - 1 : start], lowered[end : end + 1]
        if _joins(before, lowered[start]) or _joins(after, lowered[end - 1]):
            continue
        if before in LINK or after in LINK or (after == "-" and not COMPOUND.match(text, end)):
            continue
        accepts = next(accepts for words, accepts in ACCEPTS if words.fullmatch(match[0]))
        if span := _value(text, end, lowered[max(0, start - BEFORE) : end], accepts):
            yield ("account" if accepts is _is_account else "secret"), span
        elif accepts is _is_code and (code := CODE_BEFORE.search(text, max(0, start - FAR), start)):
            yield "secret", code.span(1)


def _joins(neighbour: str, letter: str) -> bool:
    """Whether a character continues the word of the letter beside it. Words of scripts without capitals may stand
    together without blanks, as in 密码."""
    return letter.upper() != letter and (neighbour.isdigit() or neighbour == "_" or neighbour.upper() != neighbour)


class _Candidate(NamedTuple):
    """What may be the value that a word names.

    text       the token; `rest` is the text from there on
    before     the word itself, and what stands before it
    between    the words after it
    is_marked  whether a colon leads to the token
    is_direct  whether a colon or a verb does
    """

    text: str
    rest: str
    before: str
    between: list[str]
    is_marked: bool
    is_direct: bool

    @property
    def ends_the_line(self) -> bool:
        return REST_OF_LINE.match(self.rest, len(self.text)) is not None


def _value(text: str, place: int, before: str, accepts: Callable[[_Candidate], int]) -> Span | None:
    """Go on from the word, over a few others, to its value."""
    between: list[str] = []
    verb = -FARTHEST  # how many words stand before the last verb
    if compound := COMPOUND.match(text, place):
        place = compound.end()
    elif text.startswith(("'s ", "’s "), place):
        between, verb, place = ["is"], 0, place + 2
    while len(between) <= FARTHEST and (token := TOKEN.match(text, place)):
        is_marked = token[1] is not None
        is_direct = is_marked or len(between) - verb <= 2
        start, word = token.start(2), token[2]
        if is_direct and (quoted := QUOTED.match(text, start)) and not NO_VALUE.search(quoted[1]):
            return quoted.span(1)
        bare = word.lstrip(OPENING)
        start += len(word) - len(bare)
        bare = bare.rstrip(CLOSING)
        if not NO_VALUE.search(word) and bare:
            candidate = _Candidate(bare, text[start : start + 80], before, between, is_marked, is_direct)
            if length := accepts(candidate):
                return start, start + length
        if is_marked or not WORD.fullmatch(word):
            return None
        if word.lower() in IS:
            verb = len(between)
        between.append(word)
        place = token.end()
    return None


def _is_password(found: _Candidate) -> int:
    """The length of a password, or 0."""
    text = found.text
    is_strong = (
        MARK_INSIDE.search(text)
        or (LETTER_AND_DIGIT.match(text) and not QUANTITY.fullmatch(text) and len(text) > 4)
        or (text.isdigit() and len(text) > (3 if found.is_direct else 7))
        or (found.is_direct and CAPITAL_INSIDE.match(text))
    )
    if found.between and not found.is_direct and found.before.endswith("pass"):  # to pass a course
        return 0
    is_plain = (
        found.is_marked and not found.between and len(text) > 4 and LETTERS.fullmatch(text) and found.ends_the_line
    )
    return len(text) if len(text) > 3 and (is_strong or is_plain) else 0


def _is_code(found: _Candidate) -> int:
    code = DIGIT_CODE.match(found.rest)
    said = " ".join((found.before, *found.between))
    if code is None or OTHER_CODE.search(said):
        return 0
    is_led_to = found.is_marked or (found.is_direct and found.between[-1].lower() in IS)
    if YEAR.fullmatch(code[0]) and not is_led_to:
        return 0
    if OPENS.search(said):
        return code.end()
    is_number = not any(map(str.isalpha, code[0]))  # as door codes, coupons and courses have letters
    is_alone = not found.between and not UNIT.match(found.rest, code.end())
    return code.end() if is_number and (found.is_direct or is_alone) else 0


def _is_card_code(found: _Candidate) -> int:
    code = SHORT_CODE.match(found.rest)
    return code.end() if code else 0


def _is_account(found: _Candidate) -> int:
    handle = HANDLE.fullmatch(found.text)
    if handle is None:
        return 0
    name = handle[2]
    is_sure = bool(handle[1]) and len(found.between) < 2
    is_name = not name.isalpha() and (found.is_direct or (not found.between and not name.isalnum()))
    is_plain = found.is_marked and name.isascii() and name.islower() and len(name) > 6 and found.ends_the_line
    return len(found.text) if is_sure or is_name or is_plain else 0


ACCEPTS = (
    (re.compile(_any_of(PASSWORD)), _is_password),
    (re.compile(_any_of(CODE)), _is_code),
    (re.compile(_any_of(CARD_CODE)), _is_card_code),
    (re.compile(_any_of(ACCOUNT)), _is_account),
)
