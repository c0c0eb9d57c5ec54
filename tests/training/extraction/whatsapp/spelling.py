"""WhatsApp's record headers as phones write them, one template a variant: what the generator spells.

Written from descriptions of real exports, and never from the parser's own tables: a mistake there must not cancel
itself out here.
"""

import re
from datetime import datetime
from functools import cache

# {d} {dd} day, {m} {mm} month, {Mon} its name, {yy} {yyyy} year, {be} Buddhist year, {era} Japanese year; {H} {HH} hour
# of 24, {h} {hh} hour of 12; {MM} {SS}; {AM} {am} {a.m.} {a. m.} and day periods by language.
IOS = {
    "ios en": "[{m}/{d}/{yy}, {HH}:{MM}:{SS}] ",
    "ios en, 12 hours": "[{m}/{d}/{yy}, {h}:{MM}:{SS}\u202f{AM}] ",
    "ios en, 12 hours until 2022": "[{m}/{d}/{yy}, {h}:{MM}:{SS} {AM}] ",
    "ios en-GB": "[{dd}/{mm}/{yyyy}, {HH}:{MM}:{SS}] ",
    "ios en-GB, 12 hours": "[{dd}/{mm}/{yyyy}, {h}:{MM}:{SS}\u202f{AM}] ",
    "ios en-CA": "[{dd}/{mm}/{yyyy}, {h}:{MM}:{SS} {a.m.}] ",
    "ios en-CA, year first": "[{yyyy}-{mm}-{dd}, {h}:{MM}:{SS}\u202f{a.m.}] ",
    "ios en-AU, lower case": "[{d}/{m}/{yy}, {h}:{MM}:{SS} {am}] ",
    "ios fr": "[{dd}/{mm}/{yyyy} {HH}:{MM}:{SS}] ",
    "ios fr, US region": "[{m}/{d}/{yy} {HH}:{MM}:{SS}] ",
    "ios es": "[{d}/{m}/{yy}, {H}:{MM}:{SS}] ",
    "ios es-MX": "[{dd}/{mm}/{yy}, {h}:{MM}:{SS}\u00a0{a. m.}] ",
    "ios de": "[{dd}.{mm}.{yy}, {HH}:{MM}:{SS}] ",
    "ios cs": "[{dd}.{mm}.{yyyy}, {HH}:{MM}:{SS}] ",
    "ios cs, with blanks": "[{d}. {m}. {yyyy} {H}:{MM}:{SS}] ",
    "ios tr": "[{d}.{mm}.{yyyy} {HH}:{MM}:{SS}] ",
    "ios nl": "[{dd}-{mm}-{yy} {HH}:{MM}:{SS}] ",
    "ios nl, comma": "[{dd}-{mm}-{yyyy}, {HH}:{MM}:{SS}] ",
    "ios id": "[{dd}/{mm}/{yy} {HH}.{MM}.{SS}] ",
    "ios da": "[{dd}.{mm}.{yyyy} {HH}.{MM}.{SS}] ",
    "ios vi, time first": "[{HH}:{MM}:{SS}, {dd}/{mm}/{yyyy}] ",
    "ios vi, US region": "[{HH}:{MM}:{SS}, {m}/{d}/{yy}] ",
    "ios, Buddhist calendar": "[{m}/{d}/{be} BE, {HH}:{MM}:{SS}] ",
    "ios th": "[{d}/{m}/{be} {HH}:{MM}:{SS}] ",
    "ios, Japanese calendar": "[{m}/{d}/{era}, {HH}:{MM}:{SS}] ",
    "ios ja": "[{yyyy}/{mm}/{dd} {H}:{MM}:{SS}] ",
    "ios ja, 12 hours": "[{yyyy}/{mm}/{dd} {午前}{K}:{MM}:{SS}] ",
    "ios ko": "[{yyyy}. {m}. {d}. {오전} {h}:{MM}:{SS}] ",
    "ios zh": "[{yyyy}/{m}/{d} {HH}:{MM}:{SS}] ",
    "ios zh, 12 hours": "[{yyyy}/{m}/{d} {上午}{h}:{MM}:{SS}] ",
    "ios zh, no blank after the name": "[{yyyy}/{m}/{d} {HH}:{MM}:{SS}] ",
    "ios ar, Arabic digits": "[{d}\u200f/{m}\u200f/{yyyy}، {h}:{MM}:٠٠ {ص}] ",
    "ios ar, Arabic digits and seconds": "[{d}\u200f/{m}\u200f/{yyyy}، {h}:{MM}:{SS}\u00a0{ص}] ",
    "ios ar": "[\u200f{d}\u200f/{m}\u200f/{yyyy}، {HH}:{MM}:{SS}] ",
    "ios ar, 12 hours": "[\u200f{d}\u200f/{m}\u200f/{yyyy}، {h}:{MM}:{SS}\u00a0{ص}] ",
    "ios fa, Persian digits": "[{yyyy}/{m}/{d}، {HH}:{MM}:{SS}] ",
    "ios he": "[{d}.{m}.{yyyy}, {HH}:{MM}:{SS}] ",
    "ios, half of the day in parentheses": "[{dd}/{mm}/{yyyy}, {h}:{MM}:{SS} ({AM})] ",
    "ios, half of the day as one letter": "[{m}/{d}/{yy}, {h}:{MM}:{SS}\u202f{a}] ",
}
ANDROID = {
    "android en-US": "{m}/{d}/{yy}, {h}:{MM}\u202f{AM} - ",
    "android en-US, until 2022": "{m}/{d}/{yy}, {h}:{MM} {AM} - ",
    "android en-US, thin space": "{m}/{d}/{yy}, {h}:{MM}\u2009{AM} - ",
    "android en-US, 24 hours": "{m}/{d}/{yy}, {HH}:{MM} - ",
    "android en-GB": "{dd}/{mm}/{yyyy}, {HH}:{MM} - ",
    "android en-GB, two digits": "{dd}/{mm}/{yy}, {HH}:{MM} - ",
    "android en-IN": "{dd}/{mm}/{yyyy}, {h}:{MM} {am} - ",
    "android en-IN, two digits": "{dd}/{mm}/{yy}, {h}:{MM}\u202f{am} - ",
    "android en-CA": "{yyyy}-{mm}-{dd}, {h}:{MM} {a.m.} - ",
    "android en-ZA": "{yyyy}/{mm}/{dd}, {HH}:{MM} - ",
    "android ymd, 12 hours": "{yyyy}/{mm}/{dd}, {hh}:{MM} {am} - ",
    "android fa, dot after the time": "{yyyy}/{mm}/{dd}, {HH}:{MM}. - ",
    "android fa, Persian digits": "{yyyy}/{mm}/{dd}،\u200f {HH}:{MM} - ",
    "android ar, Arabic digits": "{dd}/{mm}/{yyyy}، {h}:{MM} {ص} - ",
    "android ar, Arabic digits, marks": "{d}\u200f/{m}\u200f/{yyyy}، {h}:{MM}\u00a0{ص} - ",
    "android es": "{d}/{m}/{yy}, {H}:{MM} - ",
    "android es-MX": "{d}/{m}/{yyyy} {h}:{MM} {a.\u00a0m.} - ",
    "android es-CO, comma": "{d}/{m}/{yyyy}, {h}:{MM} {a. m.} - ",
    "android ru": "{dd}.{mm}.{yyyy}, {HH}:{MM} - ",
    "android de": "{dd}.{mm}.{yy}, {HH}:{MM} - ",
    "android de, um": "{dd}.{mm}.{yy} um {HH}:{MM} - ",
    "android cs": "{dd}.{mm}.{yy} {HH}:{MM} - ",
    "android nl": "{dd}-{mm}-{yyyy} {HH}:{MM} - ",
    "android nl, two digits": "{dd}-{mm}-{yy} {HH}:{MM} - ",
    "android fr": "{dd}/{mm}/{yyyy} {HH}:{MM} - ",
    "android pt": "{dd}/{mm}/{yyyy} às {HH}:{MM} - ",
    "android id": "{dd}/{mm}/{yy} {HH}.{MM} - ",
    "android fi": "{d}.{m}.{yyyy} klo {H}.{MM} - ",
    "android da": "{dd}.{mm}.{yyyy} kl. {HH}.{MM} - ",
    "android, half of the day in parentheses": "{m}/{d}/{yy}, {h}:{MM}\u202f({AM}) - ",
    "android, half of the day as one letter": "{yyyy}-{mm}-{dd}, {h}:{MM}{a} - ",
    "android vi, time first": "{HH}:{MM}, {dd}/{mm}/{yyyy} - ",
    "android, en dash": "{dd}/{mm}/{yyyy}, {HH}:{MM} – ",
    "android, day periods": "{dd}/{mm}/{yyyy}, {h}:{MM} {in the morning} - ",
    "android zh": "{yyyy}/{m}/{d} {上午}{h}:{MM} - ",
    "android zh, day periods": "{yyyy}/{m}/{d} {凌晨}{h}:{MM} - ",
    "android ja": "{yyyy}/{mm}/{dd} {HH}:{MM} - ",
    "android ko": "{yyyy}. {m}. {d}. {오전} {h}:{MM} - ",
    "android 2014, month names": "{HH}:{MM}, {d} {Mon} {yyyy} - ",
    "android 2014, month names, date first": "{d} {Mon} {yyyy} {H}:{MM} - ",
    "android 2014, this year without its number": "{HH}:{MM}, {d} {Mon} {yyyy} - ",
    "android 2014, date first, this year without its number": "{d} {Mon} {yyyy} {H}:{MM} - ",
    "android hr, 2018, no separator": "{d}. {m}. {yyyy}. {H}:{MM}:{SS} ",
    "colon, 2012": "{dd}/{mm}/{yyyy} {HH}:{MM}:{SS}: ",
    "colon, 12 hours": "{m}/{d}/{yy}, {h}:{MM}:{SS} {AM}: ",
    "colon, year first": "{yyyy}-{mm}-{dd}, {h}:{MM}:{SS} {AM}: ",
}
VARIANTS = IOS | ANDROID

ARABIC = dict(zip("0123456789", "٠١٢٣٤٥٦٧٨٩", strict=True))
PERSIAN = dict(zip("0123456789", "۰۱۲۳۴۵۶۷۸۹", strict=True))
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
REIWA = datetime(2019, 5, 1)
# The hours at which a day period of these languages begins (Unicode CLDR).
ENGLISH = ((21, "at night"), (18, "in the evening"), (12, "in the afternoon"), (6, "in the morning"), (0, "at night"))
CHINESE = ((19, "晚上"), (13, "下午"), (12, "中午"), (8, "上午"), (5, "早上"), (0, "凌晨"))


def stamp(variant: str, when: datetime, latest: datetime | None = None) -> str:
    """One header in a variant's spelling, up to where the name starts. `latest`: the chat's last message."""
    template = VARIANTS[variant]
    if "this year" in variant and latest is not None and when.year == latest.year:
        template = template.replace(" {yyyy}", "")
    digits = ARABIC if "Arabic digits" in variant else PERSIAN if "Persian digits" in variant else {}
    fields = _fields(when)
    return re.sub(r"\{([^}]+)\}", lambda field: "".join(digits.get(each, each) for each in fields[field[1]]), template)


def _fields(when: datetime) -> dict[str, str]:
    hour, half = when.hour, when.hour // 12
    fields = {
        "d": f"{when.day}",
        "dd": f"{when.day:02}",
        "m": f"{when.month}",
        "mm": f"{when.month:02}",
        "Mon": MONTHS[when.month - 1],
        "yy": f"{when.year % 100:02}",
        "yyyy": f"{when.year}",
        "be": f"{when.year + 543}",
        "era": f"R{when.year - 2018}" if when >= REIWA else f"H{when.year - 1988}",
        "H": f"{hour}",
        "HH": f"{hour:02}",
        "h": f"{hour % 12 or 12}",
        "hh": f"{hour % 12 or 12:02}",
        "K": f"{hour % 12}",
        "MM": f"{when.minute:02}",
        "SS": f"{when.second:02}",
        "in the morning": next(period for start, period in ENGLISH if hour >= start),
        "凌晨": next(period for start, period in CHINESE if hour >= start),
        "a. m.": ("a. m.", "p. m.")[half],
        "a.\u00a0m.": ("a.\u00a0m.", "p.\u00a0m.")[half],
    }
    for halves in ("AM PM", "a p", "am pm", "a.m. p.m.", "ص م", "午前 午後", "上午 下午", "오전 오후"):
        fields[halves.split()[0]] = halves.split()[half]
    return fields


def iso(variant: str, when: datetime) -> str:
    """The time as far as the header tells it."""
    return (when if "{SS}" in VARIANTS[variant] else when.replace(second=0)).isoformat()


def date_order(variant: str) -> str:
    template = VARIANTS[variant]
    if template.find("{y") < template.find("{m") and "{y" in template:
        return "ymd"
    return "mdy" if template.find("{m") < template.find("{d") and "{m" in template else "dmy"


@cache
def of_other_styles(variant: str) -> list[str]:
    """The variants whose headers cannot be taken for one of this. "none" would take a dash for a name's start."""
    own = _style(variant)
    styles = {variant: _style(variant) for variant in VARIANTS}
    return [each for each, style in styles.items() if style != own and (own != "none" or style.startswith("["))]


def _style(variant: str) -> str:
    template = VARIANTS[variant]
    bracket = "[" if variant in IOS else ""
    if "{Mon}" in template:
        return "month name"
    if template.index("{MM}") < template.index("{d"):
        return bracket + "time first"
    return bracket or {"- ": "dash", "– ": "dash", ": ": "colon", "} ": "none"}[template[-2:]]
